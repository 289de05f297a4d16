"""Where frames come from: cameras, streams, video files and image files, all by one iterator.

:func:`gfl_edge.media.opening.open_source` opens them. OpenCV's and FFmpeg's own messages are kept off stderr while a
source is used, as every problem is reported by an error or a log line here. Setting OpenCV's ``OPENCV_LOG_LEVEL``
brings them back, with the passwords of addresses in them.
"""

from __future__ import annotations

import itertools
import logging
import math
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from gfl_edge import optional
from gfl_edge.errors import ImageError, SourceError
from gfl_edge.media.capture import Attempts, Opening, declared_fps, declared_total, open_any, read_capture
from gfl_edge.media.images import read_image
from gfl_edge.ops.preprocess import AnyFrame, Image, as_bgr
from gfl_edge.redact import shown_source

IMAGES_PER_SECOND = 1.0  # of a folder, which has no clock of its own: slow enough to look at
FALLBACK_FPS = 30.0  # of a video that declares none
MAX_JITTER_S = 0.5  # that the clock of a file goes back without being another

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Frame:
    """One image of a source.

    Attributes:
        index: position in the source, from 0; image files that were skipped leave gaps.
        name: of an image file, the index otherwise.
        time_s: seconds, increasing: of a video file those that it says, of image files one each, of a live source the
            wall clock (since 1970) when the frame arrived.
        pixels: uint8 ``[H, W, 3]`` BGR, or NV12, as a hardware decoder gives it.
    """

    index: int
    name: str
    time_s: float
    pixels: AnyFrame

    @cached_property
    def image(self) -> Image:
        """The frame as uint8 ``[H, W, 3]`` BGR; of NV12 converted when it is first looked at."""
        return as_bgr(self.pixels)


class FrameSource(ABC):
    """Frames in order, to be iterated once. Usable as a context manager.

    Attributes:
        name: for messages: as it was given, without passwords (:func:`gfl_edge.redact.shown_source`).
        live: whether frames come when they come, from a camera or stream.
        fps: frames per second that the source declares; None if it does not.
        total: number of frames, as far as it is known; the header of a broken video may promise too many.
        skipped: names of image files that could not be used.
        reconnects: how often a live source was opened again.
        lost: whether it is a live source that is tried again and again just now.
        damaged: frames of a video or stream that could not be decoded and were left out.
    """

    def __init__(self, name: str, *, live: bool, fps: float | None, total: int | None) -> None:
        self.name, self.live, self.fps, self.total = shown_source(name), live, fps, total
        self.skipped: list[str] = []
        self.reconnects = 0
        self.lost = False
        self.damaged = 0

    @abstractmethod
    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames; raises SourceError if a live source is lost for good."""

    def stop(self) -> None:  # noqa: B027  files have nothing to wait for
        """Let an iteration in another thread end early where it waits for a lost source to come back."""

    def close(self) -> None:  # noqa: B027  image files hold nothing open
        """Free the camera or file."""

    def skip(self, name: str, reason: str) -> None:
        """Count the image file ``name`` as skipped, and log it."""
        self.skipped.append(name)
        logger.warning("%s: %s skipped: %s", self.name, name, reason)

    def read_on(self, capture: Any) -> AnyFrame | None:
        """The next frame of a capture; None at its end. Damaged ones are left out, counted, and logged by and by."""
        image, damaged = read_capture(capture, self.name)
        if damaged:
            before, self.damaged = self.damaged, self.damaged + damaged
            if before.bit_length() < self.damaged.bit_length():  # 1, 2, 4, 8 ...
                logger.warning("%s: frames that could not be decoded and are left out: %d", self.name, self.damaged)
        return image

    def __enter__(self) -> FrameSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


Source = int | str | Path | FrameSource  # see open_source


class ImageFiles(FrameSource):
    """Image files, one frame each; those that cannot be decoded are skipped.

    Raises:
        SourceError: none can be decoded.
    """

    def __init__(self, name: str, paths: Sequence[Path]) -> None:
        super().__init__(name, live=False, fps=IMAGES_PER_SECOND, total=len(paths))
        self._reason = ""
        decoded = self._decode(paths)
        first = next(decoded, None)
        if first is None:
            several = f"{self.name}: none of its {len(paths)} images can be decoded: " if len(paths) > 1 else ""
            raise SourceError(several + self._reason)
        self._frames = itertools.chain((first,), decoded)

    def __iter__(self) -> Iterator[Frame]:
        return self._frames

    def _decode(self, paths: Sequence[Path]) -> Iterator[Frame]:
        for index, path in enumerate(paths):
            try:
                image = read_image(path)
            except ImageError as error:
                self._reason = self._reason or str(error)
                self.skip(path.name, f"it {error.reason}")
            else:
                yield Frame(index, path.name, index / IMAGES_PER_SECOND, image)


class FileClock:
    """Times of a file's frames that only go forward, from those that the file says.

    Where the file says none, or the same as before, a frame comes an interval of its rate after the last. Where its
    clock jumps back, as between recordings that were joined, it goes on from there.

    Args:
        fps: the rate of the file.
    """

    def __init__(self, fps: float) -> None:
        self._interval = 1 / fps
        self._said = self._time = -math.inf
        self._ahead = 0.0

    def time_s(self, said_s: float) -> float:
        """The time of the next frame, of which the file says ``said_s``; OpenCV says 0 where the file says none."""
        first, following = self._time == -math.inf, self._time + self._interval
        says = math.isfinite(said_s) and said_s > 0
        if says and said_s < self._said - MAX_JITTER_S:
            self._ahead = following - said_s
        time_s = said_s + self._ahead if says else 0.0
        self._said = said_s if says else self._said
        self._time = time_s if first or time_s > self._time else following
        return self._time


class VideoFile(FrameSource):
    """The frames of a capture that has an end. A video that is cut short ends where its data end.

    A frame's time is that which the file says, as phones and screen recorders do not keep to one rate.

    Args:
        name: for messages.
        capture: an open ``cv2.VideoCapture``.
        first: the frame already read from it.
    """

    def __init__(self, name: str, capture: Any, first: AnyFrame) -> None:
        super().__init__(name, live=False, fps=declared_fps(capture), total=declared_total(capture))
        self._capture, self._first = capture, first

    def __iter__(self) -> Iterator[Frame]:
        fps = self.fps or FALLBACK_FPS
        clock, position = FileClock(fps), optional.load("cv2").CAP_PROP_POS_MSEC
        count = 0
        image: AnyFrame | None = self._first
        while image is not None:
            yield Frame(count, str(count), clock.time_s(float(self._capture.get(position)) / 1000), image)
            count += 1
            image = self.read_on(self._capture)
        if self.total is not None and self.total - count > fps:  # many headers are off by a few frames
            logger.warning("%s ends after %d frames, its header declares %d", self.name, count, self.total)

    def close(self) -> None:
        """Free the file."""
        self._capture.release()


class LiveStream(FrameSource):
    """A camera or stream, which is opened again when it drops.

    Args:
        name: for messages.
        openings: ways to open it, the one that worked first.
        capture: the capture that was opened by that.
        first: the frame already read from it.
        reconnect_seconds: how long to try after each drop; 0 = not at all.
    """

    def __init__(
        self, name: str, openings: Sequence[Opening], capture: Any, first: AnyFrame, reconnect_seconds: float
    ) -> None:
        super().__init__(name, live=True, fps=declared_fps(capture), total=None)
        self._openings, self._capture, self._first = openings, capture, first
        self._reconnect_seconds = reconnect_seconds
        self._stopped = threading.Event()

    def __iter__(self) -> Iterator[Frame]:
        image: AnyFrame | None = self._first
        for index in itertools.count():
            if image is None:
                return
            yield Frame(index, str(index), time.time(), image)
            following = self.read_on(self._capture)
            image = self._reconnect(index + 1) if following is None else following

    def stop(self) -> None:
        """Give up waiting for the source to come back."""
        self._stopped.set()

    def _reconnect(self, frames: int) -> AnyFrame | None:
        """The first frame after a drop that came after ``frames`` frames; None if it is stopped meanwhile.

        Raises SourceError when time is up.
        """
        self._capture.release()  # a camera that is still held cannot be opened again
        self.lost = True
        attempts = Attempts(self._reconnect_seconds, self._stopped)
        for attempt, away_s in attempts:
            logger.warning("%s dropped %.1f s ago; attempt %d to reconnect", self.name, away_s, attempt)
            opened = open_any(self._openings, self.name)
            if opened is not None:
                self._capture, image, _ = opened
                self.reconnects, self.lost = self.reconnects + 1, False
                logger.warning("%s is back", self.name)
                return image
        if self._stopped.is_set():
            return None
        raise SourceError(
            f"{self.name} dropped after {frames} frames and {attempts}. Check cable, power and network, then start "
            "again"
        )

    def close(self) -> None:
        """Free the camera."""
        self._capture.release()
