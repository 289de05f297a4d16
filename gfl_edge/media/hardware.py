"""The hardware decoder of a Jetson, for video files and RTSP, through OpenCV's GStreamer.

Its frames are handed on as NV12, which the kernel that resizes them on the GPU also converts. Whatever the decoder does
not do, the software decoder does: a codec, a file whose frames come out otherwise, and the rest of a file in which it
stops.
"""

from __future__ import annotations

import heapq
import logging
import os
import re
import socket
from collections.abc import Generator
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from gfl_edge import optional
from gfl_edge.environment import is_jetson
from gfl_edge.errors import InputError
from gfl_edge.media.capture import Opening, declared_total, open_capture
from gfl_edge.media.gstreamer import quoted, why_no_gstreamer
from gfl_edge.media.opencv import is_utf8, openable, quiet_opencv
from gfl_edge.media.targets import split_user
from gfl_edge.ops.preprocess import AnyFrame, Image, as_bgr

VARIABLE = "GFL_EDGE_DECODER"  # "software" for no hardware decoder
# By codec: what parses it, as the decoder wants whole frames with start codes, and decodes it
DECODERS = {
    "H.264": "h264parse ! nvv4l2decoder",
    "H.265": "h265parse ! nvv4l2decoder",
    "AV1": "av1parse ! nvv4l2decoder",
    "VP9": "nvv4l2decoder",
    "VP8": "nvv4l2decoder",
    "MPEG-4": "mpeg4videoparse ! nvv4l2decoder",
    "MPEG-2": "mpegvideoparse ! nvv4l2decoder",
}
TO_NV12 = "nvvidconv ! video/x-raw,format=NV12"
DEPAYLOADERS = {"H.264": "rtph264depay", "H.265": "rtph265depay"}
FOURCCS = {
    **dict.fromkeys(("avc1", "avc3", "h264", "x264"), "H.264"),
    **dict.fromkeys(("hvc1", "hev1", "hevc", "h265"), "H.265"),
    **dict.fromkeys(("vp80", "vp08"), "VP8"),
    **dict.fromkeys(("vp90", "vp09"), "VP9"),
    **dict.fromkeys(("mp4v", "fmp4"), "MPEG-4"),
    **dict.fromkeys(("mpg2", "mp2v"), "MPEG-2"),
    "av01": "AV1",
}
OPEN_SECONDS = 15.0  # after which the hardware decoder is taken to hang
CONNECT_SECONDS = 3.0
LATENCY_MS = 100  # that RTSP packets wait for those that come out of order; late ones are dropped
REORDERED = 32  # frames, at least, within which a file may store them out of order
MAX_DIFFERENCE = 12.0  # gray levels between the first frames of both decoders, on the mean; they round otherwise

logger = logging.getLogger(__name__)


def why_not() -> str | None:
    """Why sources are decoded in software here; "" if they are not, None where no hardware decoder is expected.

    Raises:
        InputError: the variable has another value.
    """
    chosen = os.environ.get(VARIABLE, "")
    if chosen not in ("", "auto", "software"):
        raise InputError(f"{VARIABLE} is {chosen!r}: expected auto or software")
    if not is_jetson():
        return None
    return f"{VARIABLE} is software" if chosen == "software" else why_no_gstreamer()


def decoded(path: str, name: str, capture: Any, first: AnyFrame) -> tuple[Any, AnyFrame]:
    """A capture of a video file by the hardware decoder, and its first frame, or those that were given.

    Args:
        path: of the file.
        name: for messages.
        capture: of the software decoder, which says what the file is; it is released if it is not needed.
        first: its first frame.
    """
    reason = why_not()
    if reason is None:
        return capture, first
    if not is_utf8(path):
        reason = reason or "its name is no UTF-8"
    if not reason:
        for codec in _codecs(capture):
            pipeline = (
                f"filesrc location={quoted(path)} ! parsebin ! {DECODERS[codec]} ! {TO_NV12} ! "
                "appsink sync=false max-buffers=2"
            )
            opened = open_capture(_opening(pipeline, codec), name)
            if opened is None:
                continue
            if reason := _difference(opened[1], as_bgr(first)):
                opened[0].release()
                break
            logger.info("%s is decoded in hardware (%s)", name, codec)
            return HardwareFile(path, name, opened[0], capture), opened[1]
    logger.info(
        "%s is decoded in software: %s", name, reason or f"the hardware decoder does not take it ({_fourcc(capture)})"
    )
    return capture, first


def stream_openings(url: str, name: str, software: Opening) -> list[Opening]:
    """Ways to open an RTSP stream: the hardware decoder for each codec that it may have, where there is one.

    Whoever cannot be reached is not tried by all of them, which would take as many times the timeout.
    """
    reason = why_not()
    if reason is None:
        return [software]
    if reason:
        return [Opening(software.arguments, decoder=f"in software: {reason}")]
    address, user, password = split_user(url)
    login = f" user-id={quoted(user)} user-pw={quoted(password)}" if user else ""
    start = f"rtspsrc location={quoted(address)}{login} protocols=tcp latency={LATENCY_MS} drop-on-latency=true"
    end = f"{TO_NV12} ! appsink sync=false max-buffers=1 drop=true"
    ways = [
        _opening(f"{start} ! {depayloader} ! {DECODERS[codec]} ! {end}", codec, only_if=lambda: reachable(url))
        for codec, depayloader in DEPAYLOADERS.items()
    ]
    return [*ways, Opening(software.arguments, decoder="in software: the hardware decoder took no stream of it")]


def reachable(url: str) -> bool:
    """Whether something answers at the address of an RTSP stream."""
    try:
        parts = urlsplit(split_user(url)[0])
        port = parts.port or (322 if parts.scheme.lower() == "rtsps" else 554)
        socket.create_connection((parts.hostname or "", port), CONNECT_SECONDS).close()
    except (OSError, ValueError):
        return False
    return True


class HardwareFile:
    """Stands in for ``cv2.VideoCapture``: a file by the hardware decoder, and on by the software one where that stops.

    Args:
        path: of the file.
        name: for messages.
        capture: of the hardware decoder, its first frame read.
        software: of the software decoder, which says what the file is; released.
    """

    def __init__(self, path: str, name: str, capture: Any, software: Any) -> None:
        cv2 = optional.load("cv2")
        self._path, self._name, self._capture = path, name, capture
        self._known = {prop: software.get(prop) for prop in (cv2.CAP_PROP_FPS, cv2.CAP_PROP_FRAME_COUNT)}
        self._total = declared_total(software)
        software.release()
        self._count, self._in_hardware = 1, True
        self._times, self._position = packet_times_ms(path), cv2.CAP_PROP_POS_MSEC
        self._time_ms = next(self._times, 0.0)

    def read(self) -> tuple[bool, AnyFrame | None]:
        """The next frame, as ``cv2.VideoCapture`` gives it, NV12 as long as the hardware decodes."""
        read, frame = self._capture.read()
        if not read and self._in_hardware:
            self._in_hardware = False
            missing = 0 if self._total is None else self._total - self._count
            if missing > max(1.0, self._known[optional.load("cv2").CAP_PROP_FPS]):  # headers are off by a few
                self._go_on_in_software()
                read, frame = self._capture.read()
        if read:
            self._count += 1
            self._time_ms = next(self._times, 0.0)
        return read, frame

    def _go_on_in_software(self) -> None:
        logger.warning(
            "%s: the hardware decoder stopped after %d frames; going on in software", self._name, self._count
        )
        self._capture.release()
        opened = open_capture(Opening((self._path,)), self._name)
        if opened is not None:
            self._capture = opened[0]
            for _ in range(self._count - 1):
                self._capture.grab()

    def get(self, prop: int) -> float:
        """A property of the file; the position is the time of the last frame, in milliseconds."""
        return self._time_ms if prop == self._position else float(self._known.get(prop, 0.0))

    def isOpened(self) -> bool:  # noqa: N802  as OpenCV's
        """Whether it is open."""
        return bool(self._capture.isOpened())

    def release(self) -> None:
        """Free the decoder and the file."""
        self._capture.release()
        self._times.close()  # which holds the file, too


def packet_times_ms(path: str) -> Generator[float, None, None]:
    """Times of a file's frames in the order in which they are shown, from its packets, without decoding them.

    GStreamer says the time of a frame that it has in store rather than of the one that it gave. Versions of OpenCV that
    say no times of packets give 0 for all.
    """
    cv2 = optional.load("cv2")
    with quiet_opencv(), openable(path) as name:
        packets = cv2.VideoCapture(name, cv2.CAP_FFMPEG)
    try:
        waiting: list[float] = []
        if packets.set(cv2.CAP_PROP_FORMAT, -1):
            while packets.grab():
                heapq.heappush(waiting, float(packets.get(cv2.CAP_PROP_POS_MSEC)))
                if len(waiting) > REORDERED:
                    yield heapq.heappop(waiting)
        while waiting:
            yield heapq.heappop(waiting)
    finally:
        packets.release()


def _opening(pipeline: str, codec: str, only_if: Any = None) -> Opening:
    cv2 = optional.load("cv2")
    return Opening(
        (pipeline, cv2.CAP_GSTREAMER),
        nv12=True,
        decoder=f"in hardware ({codec})",
        seconds=OPEN_SECONDS,
        only_if=only_if,
    )


def _codecs(capture: Any) -> list[str]:
    """What a file may hold: its codec, or those that are usual where it does not say."""
    codec = FOURCCS.get(_fourcc(capture).lower())
    return [codec] if codec else ["H.264", "H.265", "VP9", "AV1"]


def _fourcc(capture: Any) -> str:
    code = int(capture.get(optional.load("cv2").CAP_PROP_FOURCC))
    return re.sub(r"\W", "", (code & 0xFFFFFFFF).to_bytes(4, "little").decode("latin-1")) or "unknown codec"


def _difference(found: AnyFrame, expected: Image) -> str:
    """Why a frame of the hardware decoder is not that of the software decoder; "" if it is.

    Turned videos, rows with padding and colors of another range would only be seen as worse detections.
    """
    cv2 = optional.load("cv2")
    frame = as_bgr(found)
    if frame.shape != expected.shape:
        sizes = ["{1}x{0}".format(*image.shape) for image in (frame, expected)]
        return f"the hardware decoder gives frames of {sizes[0]} pixels instead of {sizes[1]}"
    small = [
        cv2.resize(image, (64, 36), interpolation=cv2.INTER_AREA).astype(np.float32) for image in (frame, expected)
    ]
    difference = float(np.abs(small[0] - small[1]).mean())
    if difference > MAX_DIFFERENCE:
        return f"its first frame differs by {difference:.0f} gray levels from that of the hardware decoder"
    return ""
