"""What the user calls a source, opened: a camera, stream, video file, image file or folder of images."""

from __future__ import annotations

import difflib
import logging
import os
import re
import stat
import threading
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path

from gfl_edge import optional
from gfl_edge.errors import InputError, SourceError
from gfl_edge.media import hardware
from gfl_edge.media.capture import Attempts, Opening, declared_total, open_any, open_capture
from gfl_edge.media.gstreamer import gives_nv12, why_no_gstreamer
from gfl_edge.media.images import image_files, is_image
from gfl_edge.media.sources import FrameSource, ImageFiles, LiveStream, VideoFile
from gfl_edge.redact import shown_source

RECONNECT_SECONDS = 30.0
STREAM_TIMEOUT_MS = 10_000  # FFmpeg's own is 30 s, in which a dropped stream would just hang
DEVICES = Path("/dev")  # where Linux lists cameras
MAX_CAMERA = 99  # from 100 on, OpenCV takes numbers for those of its backends
EXPECTED = "a camera number, a video, an image, a folder of images, a URL or a GStreamer pipeline"
# That come and go, by the names that FFmpeg has for them
STREAM_SCHEMES = (
    *("rtsp", "rtsps", "rtspt", "rtspu", "http", "https", "rtmp", "rtmps", "rtmpt", "rtmpe", "rtmpte", "rtmpts", "hls"),
    *("rtp", "srtp", "srt", "rist", "udp", "tcp", "tls", "mms", "mmsh", "mmst", "sctp", "whep", "v4l2", "dshow"),
)

logger = logging.getLogger(__name__)

Source = int | str | Path | FrameSource  # see open_source


def open_source(
    source: Source, *, reconnect_seconds: float = RECONNECT_SECONDS, stopped: threading.Event | None = None
) -> FrameSource:
    """Open a source and read its first frame.

    Args:
        source: camera number (0 to 99, also as digits, or ``/dev/videoN``), video file, image file, folder of images
            (sorted by name, hidden files left out), URL of a stream (rtsp, http, rtmp, udp, ...), or GStreamer
            pipeline, which is known by its ``!`` and ends in ``appsink``. Digits are always a camera; a file of such a
            name is ``./0``, or a ``Path``. A FrameSource, such as one of your own, is returned as it is.
        reconnect_seconds: how long to try where a camera or stream is not there, or drops later, with 0.5 to 8 s
            between attempts; 0 = not at all, infinity = for ever. A stream that declares a length is a file from afar:
            it ends, and is not opened again.
        stopped: ends the wait for a source that is not there.

    Raises:
        SourceError: nothing there, or nothing that gives a frame; says what to check.
        InputError: something that is no source, or negative ``reconnect_seconds``.
    """
    check_reconnect_seconds(reconnect_seconds)
    check_source(source)
    if isinstance(source, FrameSource):
        return source
    opener = _Opener(reconnect_seconds, stopped or threading.Event())
    if not isinstance(source, (str, os.PathLike)):  # a number, also NumPy's
        return opener.camera(int(source))
    if isinstance(source, os.PathLike):
        return opener.path(os.fspath(source))
    text = source.strip()
    if re.fullmatch(r"-?[0-9]+", text):
        return opener.camera(int(text[:20]), text)
    if not os.path.lexists(source):
        if scheme := re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", text):
            return opener.url(text, scheme[1].lower())
        if "!" in text:
            return opener.pipeline(text)
    return opener.path(source)


def sources_of(source: Source | Iterable[Source]) -> list[Source]:
    """One source or several, as a list; those in it are not checked."""
    if isinstance(source, (str, bytes, bytearray, Mapping, os.PathLike, FrameSource)) or not isinstance(
        source, Iterable
    ):
        return [source]  # type: ignore[list-item]  # what is none is refused by check_source
    try:
        return list(source)
    except TypeError:  # an array without a dimension
        return [source]  # type: ignore[list-item]


def is_recorded(source: Source) -> bool:
    """Whether a source is a file or a folder of them, which waits for its reader, rather than a camera or stream."""
    if isinstance(source, FrameSource):
        return not source.live
    if not isinstance(source, (str, os.PathLike)):
        return False
    try:
        return os.path.isfile(source) or os.path.isdir(source)  # noqa: PTH112, PTH113  False for what is no path
    except ValueError:
        return False


def check_source(source: object) -> None:
    """Raise InputError for what is no source, whatever there is to open."""
    if isinstance(source, FrameSource):
        return
    if isinstance(source, bool) or not isinstance(source, (Integral, str, os.PathLike)):
        found = f"{source}" if isinstance(source, (bool, float)) or source is None else f"a {type(source).__name__}"
        raise InputError(f"source is {found}: expected {EXPECTED}")
    text = os.fspath(source) if isinstance(source, os.PathLike) else str(source)
    if not isinstance(text, str):
        raise InputError(f"source is a path of {type(text).__name__}: expected {EXPECTED}")
    if not text.strip():
        raise InputError(f"source is {text!r}, which is empty: expected {EXPECTED}")
    if "\0" in text:
        raise InputError(f"source {shown_source(source)} has a zero byte in it: expected {EXPECTED}")


def check_reconnect_seconds(seconds: object) -> None:
    """Raise InputError for what is no time."""
    if isinstance(seconds, bool) or not isinstance(seconds, Real) or not float(seconds) >= 0:
        raise InputError(f"reconnect_seconds {seconds}: expected 0 (never) or more")


class _Opener:
    """Opens one source of each kind.

    Args:
        reconnect_seconds: how long to try.
        stopped: ends that.
    """

    def __init__(self, reconnect_seconds: float, stopped: threading.Event) -> None:
        self._seconds, self._stopped = float(reconnect_seconds), stopped

    def camera(self, number: int, text: str = "") -> FrameSource:
        if not 0 <= number <= MAX_CAMERA:
            said = text[:40] or number
            raise SourceError(
                f"camera number {said}: expected 0 to {MAX_CAMERA}, as N in /dev/videoN. A camera with a higher number "
                f"has a path, such as /dev/video{MAX_CAMERA + 1}; so has a file of that name: ./{said}"
            )
        devices = ", ".join(str(path) for path in sorted(DEVICES.glob("video*"))) or f"no {DEVICES}/video*"
        file = f". For the file of that name say ./{text}" if text and os.path.lexists(text) else ""
        return self._live(
            [Opening((number,))],
            f"camera {number}",
            f"this machine has {devices}. Check the number, that no other program holds the camera, and that you may "
            f"read it (on Linux: group video), or name a video, stream or folder instead (--source){file}",
        )

    def url(self, url: str, scheme: str) -> FrameSource:
        cv2 = optional.load("cv2")
        limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, STREAM_TIMEOUT_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, STREAM_TIMEOUT_MS]
        known = scheme in STREAM_SCHEMES
        like = "" if known else next(iter(difflib.get_close_matches(scheme, STREAM_SCHEMES, 1, 0.5)), "")
        plain = Opening((url, cv2.CAP_ANY, limits))
        return self._live(
            hardware.stream_openings(url, shown_source(url), plain) if scheme in ("rtsp", "rtsps") else [plain],
            shown_source(url),
            (f"Did you mean {like}://? " if like else "")
            + "Check the address, user and password, that the camera can be reached from here, and that OpenCV was "
            "built with FFmpeg",
            patient=known,
        )

    def pipeline(self, pipeline: str) -> FrameSource:
        cv2 = optional.load("cv2")
        if reason := why_no_gstreamer():
            raise SourceError(
                f"{shown_source(pipeline)} is a GStreamer pipeline, and {reason}, or give a camera number, file or URL"
            )
        return self._live(
            [Opening((pipeline, cv2.CAP_GSTREAMER), nv12=gives_nv12(pipeline))],
            shown_source(pipeline),
            "Try it with gst-launch-1.0; it must end in: videoconvert ! video/x-raw,format=BGR ! appsink",
        )

    def path(self, text: str) -> FrameSource:
        name, path = shown_source(text), Path(text)
        if device := re.fullmatch(r"/dev/video([0-9]{1,9})", followed(text)):
            return self._device(device[0], int(device[1]))
        size = _size_of_file(path, name)
        if size is None:
            return ImageFiles(text, image_files(path))
        if is_image(path):
            return ImageFiles(text, [path])
        opened = open_capture(Opening((text,)), name)
        if opened is None:
            raise SourceError(
                f"{name} ({size} bytes) is no video that OpenCV can decode. Check that it plays elsewhere, or convert "
                "it with: ffmpeg -i INPUT -c:v libx264 OUTPUT.mp4"
            )
        return VideoFile(text, *hardware.decoded(text, name, *opened))

    def _device(self, path: str, number: int) -> FrameSource:
        """A camera by its device, or a link to that, as in /dev/v4l/by-id."""
        if number <= MAX_CAMERA:
            return self.camera(number)
        advice = "Check that it is plugged in and that you may read it (group video)"
        return self._live([Opening((path, optional.load("cv2").CAP_V4L2))], path, advice)

    def _live(self, openings: Sequence[Opening], name: str, advice: str, *, patient: bool = True) -> FrameSource:
        """A camera or stream, which is waited for where it is not there."""
        opened, failed = open_any(openings, name), f"{name} cannot be opened or gives no frame"
        attempts = Attempts(self._seconds if patient else 0, self._stopped)
        if opened is None and patient and self._seconds:
            logger.warning("%s; trying again for %g s. %s", failed, self._seconds, advice)
            for attempt, away_s in attempts:
                opened = open_any(openings, name)
                if opened is not None:
                    logger.warning("%s is there", name)
                    break
                logger.warning("%s is not there after %.1f s, attempt %d", name, away_s, attempt)
        if opened is None:
            waited = f" within {self._seconds:g} s ({attempts.count} attempts more)" if attempts.count else ""
            raise SourceError(f"{failed}{waited}{'; ' if advice.startswith('this') else '. '}{advice}")
        capture, first, worked = opened
        if declared_total(capture) is not None:
            return VideoFile(name, capture, first)
        others = [opening for opening in openings if opening is not worked]
        return LiveStream(name, [worked, *others], capture, first, self._seconds)


def followed(text: str) -> str:
    """A path with its links followed, as far as that goes."""
    try:
        return os.path.realpath(text)
    except (OSError, ValueError):
        return text


def _size_of_file(path: Path, name: str) -> int | None:
    """Bytes of a file, None of a folder; raises SourceError for all else."""
    try:
        found = path.stat()
        if stat.S_ISREG(found.st_mode):
            path.open("rb").close()
    except (FileNotFoundError, NotADirectoryError):
        raise SourceError(f"{name} does not exist: expected {EXPECTED}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SourceError(f"{name} cannot be opened ({reason}): expected {EXPECTED}") from None
    if stat.S_ISDIR(found.st_mode):
        return None
    if not stat.S_ISREG(found.st_mode):
        raise SourceError(
            f"{name} is a device, pipe or socket and no camera: expected {EXPECTED}. What another program writes can "
            "be read by way of udp:// or tcp://"
        )
    if found.st_size == 0:
        raise SourceError(f"{name} is empty (0 bytes): the recording or copy failed. Record or copy it again")
    return found.st_size
