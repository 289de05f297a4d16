"""Where frames come from: cameras, streams, video files and image files, all by one iterator.

OpenCV's and FFmpeg's own messages are kept off stderr while a source is used, as every problem is reported by an error
or a log line here. Setting OpenCV's ``OPENCV_LOG_LEVEL`` brings them back.
"""

from __future__ import annotations

import itertools
import logging
import math
import re
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gfl_edge import optional
from gfl_edge.errors import ImageError, InputError, SourceError
from gfl_edge.media.images import image_files, is_image, read_image
from gfl_edge.media.opencv import build_information, quiet_opencv
from gfl_edge.ops.preprocess import Image

IMAGES_PER_SECOND = 1.0  # of a folder, which has no clock of its own: slow enough to look at
FALLBACK_FPS = 30.0  # of a video that declares none
RECONNECT_SECONDS = 30.0
MIN_DELAY_S, MAX_DELAY_S = 0.5, 8.0  # between attempts to reconnect
STREAM_TIMEOUT_MS = 10_000  # FFmpeg's own is 30 s, in which a dropped stream would just hang
MAX_JITTER_S = 0.5  # that the clock of a file goes back without being another
SECRETS = r"password|passwd|pass|pwd|user-pw|token|secret|api[-_]?key"  # parameters of addresses and pipelines
DEVICES = Path("/dev")  # where Linux lists cameras

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Frame:
    """One image of a source.

    Attributes:
        index: position in the source, from 0; image files that were skipped leave gaps.
        name: of an image file, the index otherwise.
        time_s: seconds, increasing: of a video file those that it says, of image files one each, of a live source the
            wall clock (since 1970) when the frame arrived.
        image: uint8 ``[H, W, 3]`` BGR.
    """

    index: int
    name: str
    time_s: float
    image: Image


class FrameSource(ABC):
    """Frames in order, to be iterated once. Usable as a context manager.

    Attributes:
        name: for messages, without passwords.
        live: whether frames come when they come, from a camera or stream.
        fps: frames per second that the source declares; None if it does not.
        total: number of frames, as far as it is known; the header of a broken video may promise too many.
        skipped: names of image files that could not be used.
        reconnects: how often a live source was opened again.
    """

    def __init__(self, name: str, *, live: bool, fps: float | None, total: int | None) -> None:
        self.name, self.live, self.fps, self.total = name, live, fps, total
        self.skipped: list[str] = []
        self.reconnects = 0

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
        self._reasons: list[str] = []
        decoded = self._decode(paths)
        first = next(decoded, None)
        if first is None:
            several = f"{name}: none of its {len(paths)} images can be decoded: " if len(paths) > 1 else ""
            raise SourceError(several + self._reasons[0])
        self._frames = itertools.chain((first,), decoded)

    def __iter__(self) -> Iterator[Frame]:
        return self._frames

    def _decode(self, paths: Sequence[Path]) -> Iterator[Frame]:
        for index, path in enumerate(paths):
            try:
                image = read_image(path)
            except ImageError as error:
                self._reasons.append(str(error))
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

    def __init__(self, name: str, capture: Any, first: Image) -> None:
        super().__init__(name, live=False, fps=_declared_fps(capture), total=_declared_total(capture))
        self._capture, self._first = capture, first

    def __iter__(self) -> Iterator[Frame]:
        fps = self.fps or FALLBACK_FPS
        clock, position = FileClock(fps), optional.load("cv2").CAP_PROP_POS_MSEC
        count = 0
        image: Image | None = self._first
        while image is not None:
            yield Frame(count, str(count), clock.time_s(float(self._capture.get(position)) / 1000), image)
            count += 1
            image = _read(self._capture)
        if self.total is not None and self.total - count > fps:  # many headers are off by a few frames
            logger.warning("%s ends after %d frames, its header declares %d", self.name, count, self.total)

    def close(self) -> None:
        """Free the file."""
        self._capture.release()


class LiveStream(FrameSource):
    """A camera or stream, which is opened again when it drops.

    Args:
        name: for messages.
        opening: arguments of ``cv2.VideoCapture``.
        capture: the capture that was opened with them.
        first: the frame already read from it.
        reconnect_seconds: how long to try after each drop; 0 = not at all.
    """

    def __init__(
        self, name: str, opening: tuple[Any, ...], capture: Any, first: Image, reconnect_seconds: float
    ) -> None:
        super().__init__(name, live=True, fps=_declared_fps(capture), total=None)
        self._opening, self._capture, self._first = opening, capture, first
        self._reconnect_seconds = reconnect_seconds
        self._stopped = threading.Event()

    def __iter__(self) -> Iterator[Frame]:
        image: Image | None = self._first
        for index in itertools.count():
            if image is None:
                return
            yield Frame(index, str(index), time.time(), image)
            following = _read(self._capture)
            image = self._reconnect(index + 1) if following is None else following

    def stop(self) -> None:
        """Give up waiting for the source to come back."""
        self._stopped.set()

    def _pause(self, seconds: float) -> None:
        self._stopped.wait(seconds)

    def _reconnect(self, frames: int) -> Image | None:
        """The first frame after a drop that came after ``frames`` frames; None if it is stopped meanwhile.

        Raises SourceError when time is up.
        """
        self._capture.release()  # a camera that is still held cannot be opened again
        dropped, delay, attempts = time.monotonic(), MIN_DELAY_S, 0
        while (left := self._reconnect_seconds - (time.monotonic() - dropped)) > 0:
            self._pause(min(delay, left))
            if self._stopped.is_set():
                return None
            delay, attempts = min(2 * delay, MAX_DELAY_S), attempts + 1
            away_s = time.monotonic() - dropped
            logger.warning("%s dropped %.1f s ago; attempt %d to reconnect", self.name, away_s, attempts)
            opened = _open(self._opening)
            if opened is not None:
                self._capture, image = opened
                self.reconnects += 1
                logger.warning("%s is back", self.name)
                return image
        tried = f"did not come back within {self._reconnect_seconds:g} s ({attempts} attempts)"
        if not self._reconnect_seconds:
            tried = "reconnecting is off (0 s)"
        raise SourceError(
            f"{self.name} dropped after {frames} frames and {tried}. Check cable, power and network, then start again"
        )

    def close(self) -> None:
        """Free the camera."""
        self._capture.release()


def open_source(source: Source, *, reconnect_seconds: float = RECONNECT_SECONDS) -> FrameSource:
    """Open a source and read its first frame.

    Args:
        source: camera number (also as digits, or ``/dev/videoN``), video file, image file, folder of images (sorted by
            name, hidden files left out), URL of a stream (rtsp, http, rtmp, udp, ...), or GStreamer pipeline, which is
            known by its ``!`` and ends in ``appsink``. A FrameSource, such as one of your own, is returned as it is.
        reconnect_seconds: how long to try after a camera or stream drops, with 0.5 to 8 s between attempts; 0 = not
            at all. A stream that declares a length is a file from afar: it ends, and is not opened again.

    Raises:
        SourceError: nothing there, or nothing that gives a frame; says what to check.
        InputError: negative ``reconnect_seconds``.
    """
    if not reconnect_seconds >= 0:
        raise InputError(f"reconnect_seconds {reconnect_seconds}: expected 0 (never) or more")
    if isinstance(source, FrameSource):
        return source
    text = str(source)
    camera = re.fullmatch(r"(?:/dev/video)?(-?\d+)", text)
    if camera:
        return _open_camera(int(camera[1]), reconnect_seconds)
    if isinstance(source, str) and not _exists(source):
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", source):
            return _open_url(source, reconnect_seconds)
        if "!" in source:
            return _open_pipeline(source, reconnect_seconds)
    return _open_path(Path(text))


def _open_camera(number: int, reconnect_seconds: float) -> FrameSource:
    opened = _open((number,))
    if opened is None:
        devices = ", ".join(str(path) for path in sorted(DEVICES.glob("video*"))) or f"no {DEVICES}/video*"
        raise SourceError(
            f"camera {number} cannot be opened or gives no frame; this machine has {devices}. Check the number, that "
            "no other program holds the camera, and that you may read it (on Linux: group video)"
        )
    return LiveStream(f"camera {number}", (number,), *opened, reconnect_seconds)


def _open_url(url: str, reconnect_seconds: float) -> FrameSource:
    cv2 = optional.load("cv2")
    limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, STREAM_TIMEOUT_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, STREAM_TIMEOUT_MS]
    return _open_stream(
        (url, cv2.CAP_ANY, limits),
        reconnect_seconds,
        "Check the address, user and password, that the camera can be reached from here, and that OpenCV was built "
        "with FFmpeg",
    )


def _open_pipeline(pipeline: str, reconnect_seconds: float) -> FrameSource:
    cv2 = optional.load("cv2")
    if not build_information().get("GStreamer", "NO").startswith("YES"):
        raise SourceError(
            f"{without_password(pipeline)} is a GStreamer pipeline, and OpenCV {cv2.__version__} was built without "
            "GStreamer, as all opencv-python wheels are. Use the system's OpenCV (JetPack brings one on Jetson), "
            "or give a camera number, file or URL"
        )
    return _open_stream(
        (pipeline, cv2.CAP_GSTREAMER),
        reconnect_seconds,
        "Try it with gst-launch-1.0; it must end in: videoconvert ! video/x-raw,format=BGR ! appsink",
    )


def _open_stream(opening: tuple[Any, ...], reconnect_seconds: float, advice: str) -> FrameSource:
    name = without_password(opening[0])
    opened = _open(opening)
    if opened is None:
        raise SourceError(f"{name} cannot be opened or gives no frame. {advice}")
    if _declared_total(opened[0]) is not None:
        return VideoFile(name, *opened)
    return LiveStream(name, opening, *opened, reconnect_seconds)


def _open_path(path: Path) -> FrameSource:
    if not path.exists():
        raise SourceError(
            f"{without_password(str(path))} does not exist: expected a camera number, a video, an image, a folder of "
            "images, a URL or a GStreamer pipeline"
        )
    if path.is_dir():
        return ImageFiles(str(path), image_files(path))
    if path.stat().st_size == 0:
        raise SourceError(f"{path} is empty (0 bytes): the recording or copy failed. Record or copy it again")
    if is_image(path):
        return ImageFiles(str(path), [path])
    opened = _open((str(path),))
    if opened is None:
        raise SourceError(
            f"{path} ({path.stat().st_size} bytes) is no video that OpenCV can decode. Check that it plays elsewhere, "
            "or convert it with: ffmpeg -i INPUT -c:v libx264 OUTPUT.mp4"
        )
    return VideoFile(str(path), *opened)


def _open(opening: tuple[Any, ...]) -> tuple[Any, Image] | None:
    """An open capture and its first frame; None if there is none."""
    cv2 = optional.load("cv2")
    with quiet_opencv():
        capture = cv2.VideoCapture(*opening)
        first = _read(capture) if capture.isOpened() else None
        if first is None:
            capture.release()
            return None
        return capture, first


def _read(capture: Any) -> Image | None:
    """The next frame of a capture; None at its end, or when it dropped."""
    with quiet_opencv():
        read, image = capture.read()
    return image if read else None


def _declared_fps(capture: Any) -> float | None:
    fps = float(capture.get(optional.load("cv2").CAP_PROP_FPS))
    return fps if 0 < fps < 1000 else None  # raw streams declare the ticks of their clock, such as 90000


def _declared_total(capture: Any) -> int | None:
    total = float(capture.get(optional.load("cv2").CAP_PROP_FRAME_COUNT))
    return int(total) if 0 < total < 1e9 else None  # live streams declare none, or something absurd


def _exists(text: str) -> bool:
    try:
        return Path(text).exists()
    except (OSError, ValueError):  # a pipeline may be longer than any file name
        return False


def without_password(text: str) -> str:
    """The address or pipeline ``text`` for messages: passwords and keys are left out."""
    text = re.sub(r"(:/+[^/:@\s]*):\S*@", r"\1:***@", text)
    return re.sub(rf"(?i)\b({SECRETS})=[^\s&;!]+", r"\1=***", text)
