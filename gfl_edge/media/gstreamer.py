"""GStreamer pipelines as text, for OpenCV, which runs them where it was built with GStreamer."""

from __future__ import annotations

import re

from gfl_edge import optional
from gfl_edge.media.opencv import build_information

# An element stands first, after "!" or "t." of a tee, or alone; "appsrc.mp4" is a file
_APPSRC = re.compile(r"(?:^|[!\s])appsrc(?=[!\s]|$)")
_NV12 = re.compile(r"format\s*=\s*(\(string\)\s*)?\"?NV12\b[^!]*!\s*appsink\b[^!]*$")
_LINK = re.compile(r"(?:^|\s)!(?:\s|$)")


def is_pipeline(text: str) -> bool:
    """Whether an output is a pipeline rather than a file: it has a link (``!``) by itself, or begins with appsrc."""
    return bool(_LINK.search(text) or _APPSRC.match(text.strip()))


def has_appsrc(pipeline: str) -> bool:
    """Whether a pipeline takes frames from a program."""
    return bool(_APPSRC.search(pipeline))


def gives_nv12(pipeline: str) -> bool:
    """Whether the last word of a pipeline before its appsink is that frames are NV12."""
    return bool(_NV12.search(pipeline))


def quoted(value: str) -> str:
    """A value as it stands in a pipeline, whatever is in it: file names may have quotes and exclamation marks."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def why_no_gstreamer() -> str:
    """Why OpenCV runs no pipeline, and what to do; "" if it does."""
    if build_information().get("GStreamer", "NO").startswith("YES"):
        return ""
    return (
        f"OpenCV {optional.load('cv2').__version__} was built without GStreamer, as all opencv-python wheels are. Use "
        "the system's OpenCV (sudo apt install python3-opencv, in an environment of: python3 -m venv "
        "--system-site-packages .venv; JetPack brings one on Jetson)"
    )
