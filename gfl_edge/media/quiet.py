"""Keeping OpenCV and FFmpeg from writing to stderr."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gfl_edge import optional

_LOG_VARIABLE, _FFMPEG_LOG_VARIABLE = "OPENCV_LOG_LEVEL", "OPENCV_FFMPEG_LOGLEVEL"
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
                log.setLogLevel(log.LOG_LEVEL_SILENT)
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
    log = optional.load("cv2").utils.logging
    _quiet.enter(log)
    try:
        yield
    finally:
        _quiet.leave(log)
