"""OpenCV's captures: opened, read and waited for, and what they say of themselves."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

from gfl_edge import optional
from gfl_edge.errors import SourceError
from gfl_edge.media.limits import too_large
from gfl_edge.media.opencv import quiet_opencv
from gfl_edge.ops.preprocess import Image
from gfl_edge.redact import redact

MIN_DELAY_S, MAX_DELAY_S = 0.5, 8.0  # between attempts to open a source again
MAX_DAMAGED = 30  # frames in a row that cannot be decoded, after which there is nothing more to expect
SLOW_READ_S = 1.0  # a read in vain that takes longer has waited for data that did not come

logger = logging.getLogger(__name__)

Opening = tuple[Any, ...]  # arguments of cv2.VideoCapture; never shown, as they may hold a password


def open_capture(opening: Opening, name: str) -> tuple[Any, Image] | None:
    """An open capture of the source ``name`` and its first frame; None if there is none.

    Raises:
        SourceError: its frames are larger than any image may be.
    """
    cv2 = optional.load("cv2")
    try:
        with quiet_opencv():
            capture = cv2.VideoCapture(*opening)
    except (cv2.error, UnicodeError) as error:  # UnicodeError: a name that is no UTF-8
        logger.debug("%s: %s", name, redact(str(error)))
        return None
    width, height = (float(capture.get(side)) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
    if reason := too_large(width, height):
        capture.release()
        raise SourceError(f"{name} has frames of {width:.0f}x{height:.0f} pixels: {reason}")
    first = read_capture(capture, name)[0] if capture.isOpened() else None
    if first is None:
        capture.release()
        return None
    return capture, first


def read_capture(capture: Any, name: str) -> tuple[Image | None, int]:
    """The next frame of the source ``name``, None at its end or when it dropped; and how many were damaged before it.

    OpenCV says of a frame that cannot be decoded what it says of the end, so that the end is where nothing follows.
    """
    for damaged in range(MAX_DAMAGED):
        start = time.monotonic()
        image = _read(capture, name)
        if image is not None:
            return image, damaged
        if time.monotonic() - start > SLOW_READ_S:
            break
    return None, 0


def _read(capture: Any, name: str) -> Image | None:
    cv2 = optional.load("cv2")
    try:
        with quiet_opencv():
            read, image = capture.read()
    except cv2.error as error:  # data that OpenCV trips over
        logger.debug("%s: OpenCV could not read on: %s", name, redact(str(error)).strip())
        return None
    return image if read else None


def declared_fps(capture: Any) -> float | None:
    """Frames per second that the source declares; None if it does not."""
    fps = float(capture.get(optional.load("cv2").CAP_PROP_FPS))
    return fps if 0 < fps < 1000 else None  # raw streams declare the ticks of their clock, such as 90000


def declared_total(capture: Any) -> int | None:
    """Number of frames; None of a live source."""
    total = float(capture.get(optional.load("cv2").CAP_PROP_FRAME_COUNT))
    return int(total) if 0 < total < 1e9 else None  # live streams declare none, or something absurd


class Attempts:
    """Moments at which to try to open a source again, by and by rarer; iterated once.

    Each is the number of the attempt, from 1, and the seconds since the iteration began.

    Args:
        seconds: how long to try; 0 = not at all.
        stopped: ends the wait, and the iteration with it.

    Attributes:
        count: attempts so far.
    """

    def __init__(self, seconds: float, stopped: threading.Event) -> None:
        self.count = 0
        self._seconds, self._stopped = seconds, stopped

    def __iter__(self) -> Iterator[tuple[int, float]]:
        start, delay = time.monotonic(), MIN_DELAY_S
        while (left := self._seconds - (time.monotonic() - start)) > 0:
            pause(self._stopped, min(delay, left))
            if self._stopped.is_set():
                return
            delay, self.count = min(2 * delay, MAX_DELAY_S), self.count + 1
            yield self.count, time.monotonic() - start

    def __str__(self) -> str:
        """For an error: what was tried in vain."""
        if not self._seconds:
            return "reconnecting is off (0 s)"
        attempts = "1 attempt" if self.count == 1 else f"{self.count} attempts"
        return f"did not come back within {self._seconds:g} s ({attempts})"


def pause(stopped: threading.Event, seconds: float) -> None:
    """Wait so long, or until it is stopped."""
    stopped.wait(seconds)
