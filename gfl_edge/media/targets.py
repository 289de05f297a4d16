"""What the user calls an output of video: a file, the address of a server, or a GStreamer pipeline."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from gfl_edge.errors import InputError
from gfl_edge.media.gstreamer import has_appsrc, is_pipeline, quoted, why_no_gstreamer
from gfl_edge.redact import shown_source

SOURCE_FIELD = "{source}"  # in an output: stands for the number of its source
EXPECTED = "a file .mp4 or .avi, an address (rtsp://, rtsps://, srt://, udp://), or a GStreamer pipeline with appsrc"
_TO_H264 = (
    "appsrc ! videoconvert ! video/x-raw,format=I420 ! "
    "x264enc tune=zerolatency speed-preset=superfast bitrate=4000 key-int-max=60 ! h264parse"
)
_TO_TS = f"{_TO_H264} ! mpegtsmux alignment=7"
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_WRITES_FILES = re.compile(r"location\s*=\s*[\"']?(?![\"']?[A-Za-z][\w+.-]*://)|filesink|splitmuxsink")


@dataclass(frozen=True)
class StreamTarget:
    """Where GStreamer sends a video.

    Attributes:
        name: for messages, without passwords.
        pipeline: for ``gst_parse_launch``.
        repeats: whether another attempt may follow where it fails: a server comes back, a file would be written over.
        even: whether it takes only frames of even sizes.
    """

    name: str
    pipeline: str = field(repr=False)
    repeats: bool
    even: bool


def target_of(output: str | Path, index: int = 0, sources: int = 1) -> Path | StreamTarget:
    """Where the video of the source ``index`` of ``sources`` goes. A ``Path`` is always a file.

    A file's name gets the number of its source in place of ``{source}``, or at its end where there are several; an
    address or pipeline has to have ``{source}`` then.

    Raises:
        InputError: no address or pipeline that can be an output, or OpenCV has no GStreamer.
    """
    named = str(output).replace(SOURCE_FIELD, str(index))
    scheme = _ADDRESS.match(named.strip())
    if not isinstance(output, str) or not (scheme or is_pipeline(named)):
        path = Path(named)
        return (
            path if SOURCE_FIELD in str(output) or sources == 1 else path.with_name(f"{path.stem}-{index}{path.suffix}")
        )
    text, name = named.strip(), shown_source(named)
    if sources > 1 and SOURCE_FIELD not in output:
        raise InputError(
            f"{name} is one output for {sources} sources: put {SOURCE_FIELD} where it is to have their number, such as "
            "rtsp://HOST:8554/camera-{source}"
        )
    target = _of_address(text, name, scheme[1].lower()) if scheme else _of_pipeline(text, name)
    if reason := why_no_gstreamer():
        raise InputError(f"{name} needs GStreamer, and {reason}, or write a file instead: --output out.mp4")
    return target


def _of_pipeline(text: str, name: str) -> StreamTarget:
    if not has_appsrc(text):
        raise InputError(
            f"{name} has no appsrc, by which frames come into a pipeline: expected one such as "
            "appsrc ! videoconvert ! x264enc ! mp4mux ! filesink location=out.mp4"
        )
    return StreamTarget(name, text, repeats=not _WRITES_FILES.search(text), even=False)


def _of_address(url: str, name: str, scheme: str) -> StreamTarget:
    if scheme in ("rtsp", "rtsps"):
        address, user, password = split_user(url)
        login = f" user-id={quoted(user)} user-pw={quoted(password)}" if user else ""
        pipeline = f"{_TO_H264} ! rtspclientsink protocols=tcp location={quoted(address)}{login}"
    elif scheme == "srt":
        pipeline = f"{_TO_TS} ! srtsink wait-for-connection=false uri={quoted(url)}"
    elif scheme == "udp":
        try:
            host, port = urlsplit(url).hostname, urlsplit(url).port
        except ValueError:
            host = port = None
        if not host or not port:
            raise InputError(f"{name}: expected host and port, such as udp://192.168.1.20:5000")
        pipeline = f"{_TO_TS} ! udpsink host={quoted(host)} port={port}"
    else:
        raise InputError(f"{name} cannot be written to: expected {EXPECTED}")
    return StreamTarget(name, pipeline, repeats=True, even=True)


def split_user(url: str) -> tuple[str, str, str]:
    """An address without its user and password, and these, for elements that have properties for them.

    GStreamer reads addresses more strictly than cameras' owners write them: passwords may have @ and / in them.
    """
    scheme, _, rest = url.partition("://")
    authority = rest.partition("/")[0]
    port = authority.rpartition(":")[2]
    if "@" not in authority and not ("@" in rest and ":" in authority and not port.isdigit()):
        return url, "", ""
    if "@" in authority:
        login, _, host = authority.rpartition("@")
        host += rest[len(authority) :]
    else:
        login, _, host = rest.rpartition("@")
    user, _, password = login.partition(":")
    return f"{scheme}://{host}", unquote(user), unquote(password)
