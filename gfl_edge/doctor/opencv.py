"""OpenCV, and which cameras, streams and windows it was built for."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from gfl_edge.doctor.findings import Finding
from gfl_edge.doctor.packages import Package, loaded
from gfl_edge.media.opencv import build_information
from gfl_edge.media.opening import DEVICES

SECTION = "OpenCV"
# What a minimal image of Debian or Ubuntu lacks, or the wheel that does without
WINDOW_LIBRARIES = "sudo apt install libgl1 libglib2.0-0, or: pip install --force-reinstall opencv-python-headless"
CV2 = Package(
    *("cv2", "images, videos, cameras", ("opencv-python", "opencv-python-headless", "opencv-contrib-python")),
    repair=WINDOW_LIBRARIES,
)
# The distribution's OpenCV is built with GStreamer, that of the wheels is not
WITH_GSTREAMER = "sudo apt install python3-opencv, for an environment of: python3 -m venv --system-site-packages .venv"
SHOWN_BY = ("DISPLAY", "WAYLAND_DISPLAY")


def examine(on_jetson: bool = False) -> list[Finding]:
    """OpenCV's version, its back ends and the cameras that are plugged in."""
    found = loaded(SECTION, CV2)
    if found.status != "ok":
        return [replace(found, remedy=WITH_GSTREAMER) if on_jetson and found.status == "missing" else found]
    built = build_information()
    reinstall = "pip install --force-reinstall opencv-python"
    return [
        found,
        _backend(built, "FFMPEG", "video files, RTSP and HTTP streams", reinstall),
        _backend(built, "v4l/v4l2", "USB cameras", reinstall),
        _backend(built, "GStreamer", "pipelines, streams out, Jetson's CSI cameras and decoder", WITH_GSTREAMER),
        window(built, os.environ),
        *cameras(DEVICES),
    ]


def _backend(built: Mapping[str, str], name: str, use: str, remedy: str) -> Finding:
    value = built.get(name, "NO")
    if value.startswith("YES"):
        return Finding(SECTION, name, "ok", f"{value.removeprefix('YES').strip(' ()')}: {use}".removeprefix(": "))
    return Finding(SECTION, name, "missing", f"not in this OpenCV: {use}", remedy)


def window(built: Mapping[str, str], environment: Mapping[str, str]) -> Finding:
    """Whether a window can be opened here."""
    kind = built.get("GUI", "NONE")
    if kind in ("NONE", "NO"):
        remedy = "pip uninstall opencv-python-headless && pip install opencv-python"
        return Finding(SECTION, "window", "missing", "this OpenCV is headless: --show cannot open a window", remedy)
    if sys.platform.startswith("linux") and not any(environment.get(name) for name in SHOWN_BY):
        remedy = "log in at the screen, or run with --headless"
        return Finding(SECTION, "window", "missing", f"{kind}, but there is no display here", remedy)
    return Finding(SECTION, "window", "ok", kind)


def cameras(devices: Path) -> list[Finding]:
    """The cameras that Linux lists; nothing on other systems."""
    if not sys.platform.startswith("linux"):
        return []
    found = sorted(devices.glob("video*"))
    if not found:
        return [
            Finding(SECTION, "camera", "missing", f"no {devices}/video*", "plug one in, or take a file or a stream")
        ]
    closed = [path.name for path in found if not os.access(path, os.R_OK | os.W_OK)]
    if closed:
        remedy = "sudo usermod -aG video $USER, then log in again"
        return [Finding(SECTION, "camera", "problem", f"may not be opened by you: {', '.join(closed)}", remedy)]
    return [Finding(SECTION, "camera", "ok", ", ".join(path.name for path in found))]
