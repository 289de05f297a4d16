"""Where images go: an annotated video and a window."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from gfl_edge import optional
from gfl_edge.errors import InputError
from gfl_edge.files import whole_file
from gfl_edge.media.containers import Growth
from gfl_edge.media.draw import fitted
from gfl_edge.media.opencv import openable, quiet_opencv, window_toolkit
from gfl_edge.media.pace import Pace
from gfl_edge.ops.preprocess import Image

CODEC_OF = {".mp4": "mp4v", ".avi": "MJPG"}
MAX_WINDOW_WH = (1280, 960)

_ESCAPE = 27
_WINDOW_PROBE = "import cv2; cv2.namedWindow('probe'); cv2.destroyAllWindows()"


class VideoSink:
    """An annotated video, written under a temporary name that becomes ``path`` when it is closed.

    All frames get the size of the first; others are fitted into it with black borders. Without any frame there is no
    file.

    Args:
        path: ``.mp4`` (MPEG-4) or ``.avi`` (Motion JPEG); missing folders are made.
        fps, measure, hold: see :class:`gfl_edge.media.pace.Pace`.

    Raises:
        InputError: another suffix.
    """

    def __init__(self, path: str | Path, fps: float | None, *, measure: bool = False, hold: bool = False) -> None:
        self.path, self.frames = Path(path), 0
        if self.path.suffix.lower() not in CODEC_OF:
            raise InputError(
                f"{path}: cannot write a video of type {self.path.suffix or 'none'!r}, expected one of "
                f"{', '.join(CODEC_OF)}"
            )
        self._pace, self._written = Pace(fps, measure=measure, hold=hold), 0
        self._writer: Any = None
        self._file = ExitStack()

    def write(self, image: Image, time_s: float) -> None:
        """Append ``image`` (uint8 ``[H, W, 3]`` BGR, kept for a while: do not change it), taken at ``time_s`` seconds.

        Raises:
            OutputError: the file cannot be written, or the disk is nearly full; what was written so far can be kept.
            InputError: OpenCV cannot write frames of this size.
        """
        self.frames += 1
        for due in self._pace.images(image, time_s):
            self._append(due)

    def expect(self, image: Image) -> None:
        """Raise as :meth:`write` does if it would, before ``image`` is in any other output."""
        if self._pace.known:
            self._make_room(image)

    def close(self) -> None:
        """Finish the file; what was written so far is kept.

        Raises:
            OutputError: the disk took not all of it; a file that was there before stays.
        """
        for due in self._pace.rest():  # which may open the file
            self._append(due)
        with self._file:
            if self._writer is not None:
                self._writer.release()
                self._writer = None
                self._growth.check_whole()

    def _append(self, image: Image) -> None:
        self._make_room(image)
        self._writer.write(fitted(image, self._size_hw))
        self._written += 1

    def _make_room(self, image: Image) -> None:
        if self._writer is None:
            self._open(image.shape[:2])
        self._growth.check(self._written, image.nbytes)

    def _open(self, size_hw: tuple[int, int]) -> None:
        cv2 = optional.load("cv2")
        self._size_hw = size_hw
        codec = cv2.VideoWriter_fourcc(*CODEC_OF[self.path.suffix.lower()])
        with ExitStack() as opening:
            temporary = opening.enter_context(whole_file(self.path))  # OpenCV would not say why it cannot write
            growth = Growth(temporary, self.path)
            growth.check(0, 3 * size_hw[0] * size_hw[1])
            opening.enter_context(quiet_opencv())
            with openable(str(temporary)) as name:
                writer = cv2.VideoWriter(name, codec, self._pace.rate, size_hw[::-1])
            if not writer.isOpened():
                raise InputError(
                    f"{self.path}: OpenCV cannot write {size_hw[1]}x{size_hw[0]} pixels at {self._pace.rate:g} FPS as "
                    f"{CODEC_OF[self.path.suffix.lower()]}. Try the other of {', '.join(CODEC_OF)}"
                )
            self._growth, self._writer, self._file = growth, writer, opening.pop_all()

    def __enter__(self) -> VideoSink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Window:
    """A window that shows frames until q, Esc or its close button is pressed."""

    def __init__(self, title: str) -> None:
        self._title, self._cv2 = title, optional.load("cv2")
        self._opened = False

    def show(self, image: Image) -> bool:
        """Show ``image`` (uint8 ``[H, W, 3]`` BGR); False when the user has closed the window."""
        if not self._opened:
            self._open(image)
        self._cv2.imshow(self._title, image)
        return self.stays()

    def stays(self) -> bool:
        """Let the window answer to mouse and keys; False when the user has closed it."""
        cv2 = self._cv2
        if not self._opened:
            return True
        if cv2.waitKey(1) & 0xFF in (ord("q"), _ESCAPE):
            return False
        return bool(cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) >= 1)

    def _open(self, image: Image) -> None:
        cv2 = self._cv2
        height, width = image.shape[:2]
        scale = min(1.0, MAX_WINDOW_WH[0] / width, MAX_WINDOW_WH[1] / height)
        cv2.namedWindow(self._title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
        cv2.resizeWindow(self._title, max(1, round(width * scale)), max(1, round(height * scale)))
        self._opened = True

    def close(self) -> None:
        """Close the window, if it is still there."""
        if self._opened:
            self._cv2.destroyAllWindows()  # destroyWindow raises for a window that the user closed
        self._opened = False

    def __enter__(self) -> Window:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def why_no_window() -> str | None:
    """Why no window can be opened here; None if one can."""
    if not window_toolkit():
        return "this OpenCV was built without windows (opencv-python-headless); install opencv-python"
    if sys.platform in ("win32", "darwin"):
        return None
    display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if not display:
        return "neither DISPLAY nor WAYLAND_DISPLAY is set, so there is no screen; log in on the machine or use ssh -X"
    if not _window_opens():
        return f"the display {display} cannot be opened; check that it runs and that you may use it (xhost, XAUTHORITY)"
    return None


def _window_opens() -> bool:
    """Try it in another process: where the display refuses, Qt aborts the process instead of raising."""
    try:
        probe = subprocess.run([sys.executable, "-c", _WINDOW_PROBE], capture_output=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return probe.returncode == 0
