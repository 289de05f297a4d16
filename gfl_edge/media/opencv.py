"""OpenCV as a library: kept off stderr, and what its versions from 4.5.5 to 5.0 call differently."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from gfl_edge import optional

_LOG_VARIABLE, _FFMPEG_LOG_VARIABLE = "OPENCV_LOG_LEVEL", "OPENCV_FFMPEG_LOGLEVEL"
LOG_LEVEL_SILENT = 0  # cv2.utils.logging has a name for it from 4.13
_FFMPEG_QUIET = "-8"  # AV_LOG_QUIET


class _Quiet:
    """Counts who keeps OpenCV quiet now: the level and the variable belong to the process, threads come and go."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._level: Any = None
        self._variable_is_ours = False

    def enter(self, log: Any) -> None:
        with self._lock:
            self._users += 1
            if self._users == 1:
                self._level = log.getLogLevel()
                log.setLogLevel(LOG_LEVEL_SILENT)
                # FFmpeg's level is read when the process first uses it, and only then
                self._variable_is_ours = _FFMPEG_LOG_VARIABLE not in os.environ
                os.environ.setdefault(_FFMPEG_LOG_VARIABLE, _FFMPEG_QUIET)

    def leave(self, log: Any) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                log.setLogLevel(self._level)
                if self._variable_is_ours:
                    os.environ.pop(_FFMPEG_LOG_VARIABLE, None)


_quiet = _Quiet()


@contextmanager
def quiet_opencv() -> Iterator[None]:
    """Keep OpenCV and FFmpeg from writing to stderr, unless the user set ``OPENCV_LOG_LEVEL``; any thread may."""
    if _LOG_VARIABLE in os.environ:
        yield
        return
    log = logging_functions()
    _quiet.enter(log)
    try:
        yield
    finally:
        _quiet.leave(log)


def is_utf8(name: str) -> bool:
    """Whether OpenCV takes a text: its bindings end the process by a signal where a str has bytes that are no UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


@contextmanager
def openable(name: str) -> Iterator[str]:
    """A file's name for OpenCV to open it by: its own, or a link to it where that is no UTF-8, as of an old archive."""
    if is_utf8(name):
        yield name
        return
    with TemporaryDirectory(prefix="gfl_edge-") as folder:
        suffix = Path(name).suffix
        link = Path(folder, f"video{suffix if is_utf8(suffix) else ''}")
        link.symlink_to(Path(name).absolute())
        yield str(link)


def logging_functions() -> Any:
    """What has ``getLogLevel`` and ``setLogLevel``: ``cv2.utils.logging`` from 4.13, ``cv2`` itself before."""
    cv2 = optional.load("cv2")
    return cv2 if hasattr(cv2, "setLogLevel") else cv2.utils.logging


def build_information() -> dict[str, str]:
    """``cv2.getBuildInformation()`` as value by name, such as "GStreamer": "YES (1.20.3)"; of doubles the first."""
    found: dict[str, str] = {}
    for line in optional.load("cv2").getBuildInformation().splitlines():
        if entry := re.match(r"\s+([^:]+):\s+(\S.*)$", line):
            found.setdefault(entry[1].strip(), entry[2].strip())
    return found


def window_toolkit() -> str:
    """What OpenCV opens windows with, such as "QT5"; "" where it was built without. As the build says, because
    ``cv2.currentUIFramework`` is there from 4.10 only.
    """
    kind = build_information().get("GUI", "NONE")
    return "" if kind in ("NONE", "NO") else kind
