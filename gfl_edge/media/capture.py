"""OpenCV's captures: opened, read and waited for, and what they say of themselves."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, TimeoutError
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from gfl_edge import optional
from gfl_edge.errors import FrameError, SourceError
from gfl_edge.media.limits import too_large
from gfl_edge.media.opencv import openable, quiet_opencv
from gfl_edge.ops.preprocess import AnyFrame, Nv12Frame
from gfl_edge.redact import redact

MIN_DELAY_S, MAX_DELAY_S = 0.5, 8.0  # between attempts to open a source again
MAX_DAMAGED = 30  # frames in a row that cannot be decoded, after which there is nothing more to expect
SLOW_READ_S = 1.0  # a read in vain that takes longer has waited for data that did not come

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Opening:
    """A way to open a source.

    Attributes:
        arguments: of ``cv2.VideoCapture``; never shown, as they may hold a password.
        nv12: whether its frames are NV12.
        decoder: what decodes it, where that is worth a line; "" elsewhere.
        seconds: that opening may take before it is taken to hang; None = any.
        only_if: says whether it is worth trying; None: it is.
    """

    arguments: tuple[Any, ...] = field(repr=False)
    nv12: bool = False
    decoder: str = ""
    seconds: float | None = None
    only_if: Callable[[], bool] | None = None


class Nv12Capture:
    """A capture whose frames are NV12.

    Args:
        capture: gives planes, uint8 ``[h * 3 / 2, w]``.
    """

    def __init__(self, capture: Any) -> None:
        self._capture = capture

    def read(self) -> tuple[bool, AnyFrame | None]:
        """As a ``cv2.VideoCapture`` does."""
        read, planes = self._capture.read()
        if not read or planes.ndim != 2:
            return read, planes
        return True, Nv12Frame(planes)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._capture, name)


def open_any(openings: Iterable[Opening], name: str) -> tuple[Any, AnyFrame, Opening] | None:
    """By the first of several ways that works: an open capture, its first frame, and the way; None if none does."""
    for opening in openings:
        if opening.only_if is not None and not opening.only_if():
            continue
        opened = open_capture(opening, name)
        if opened is not None:
            if opening.decoder:
                logger.info("%s is decoded %s", name, opening.decoder)
            return *opened, opening
    return None


def open_capture(opening: Opening, name: str) -> tuple[Any, AnyFrame] | None:
    """An open capture of the source ``name`` and its first frame; None if there is none, or not in time.

    Raises:
        SourceError: its frames are larger than any image may be.
    """
    if opening.seconds is None:
        return _open(opening, name)
    # GStreamer may wait for ever for what does not come; the thread is left to itself then
    opened: Future[tuple[Any, AnyFrame] | None] = Future()

    def work() -> None:
        found, failed = None, None
        try:
            found = _open(opening, name)
        except Exception as error:
            failed = error
        if not opened.set_running_or_notify_cancel():  # too late
            if found is not None:
                found[0].release()
        elif failed is not None:
            opened.set_exception(failed)
        else:
            opened.set_result(found)

    threading.Thread(target=work, name=f"open {name}", daemon=True).start()
    try:
        return opened.result(opening.seconds)
    except TimeoutError:
        if opened.cancel():
            logger.debug("%s: did not open within %g s %s", name, opening.seconds, opening.decoder)
            return None
        return opened.result()  # it opened just now


def _open(opening: Opening, name: str) -> tuple[Any, AnyFrame] | None:
    """See :func:`open_capture`.

    Raises:
        SourceError: its frames are larger than any image may be.
    """
    cv2 = optional.load("cv2")
    try:
        with quiet_opencv(), _opencv_arguments(opening) as arguments:
            capture = cv2.VideoCapture(*arguments)
    except (cv2.error, OSError, ValueError) as error:  # OSError, ValueError: of a link to a name that is no UTF-8
        logger.debug("%s: %s", name, redact(str(error)))
        return None
    width, height = (float(capture.get(side)) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
    if reason := too_large(width, height):
        capture.release()
        raise SourceError(f"{name} has frames of {width:.0f}x{height:.0f} pixels: {reason}")
    capture = Nv12Capture(capture) if opening.nv12 else capture
    first = read_capture(capture, name)[0] if capture.isOpened() else None
    if first is None:
        capture.release()
        return None
    return capture, first


@contextmanager
def _opencv_arguments(opening: Opening) -> Iterator[tuple[Any, ...]]:
    """Of ``cv2.VideoCapture``, while it opens."""
    what, *how = opening.arguments
    if not isinstance(what, str):
        yield opening.arguments
        return
    with openable(what) as name:
        yield (name, *how)


def read_capture(capture: Any, name: str) -> tuple[AnyFrame | None, int]:
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


def _read(capture: Any, name: str) -> AnyFrame | None:
    cv2 = optional.load("cv2")
    try:
        with quiet_opencv():
            read, image = capture.read()
    except (cv2.error, FrameError) as error:  # data that OpenCV trips over; NV12 of an odd size
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
