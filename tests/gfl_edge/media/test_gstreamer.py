"""Real GStreamer pipelines, in a Python whose OpenCV has GStreamer: Debian's (apt-get install python3-opencv)."""

from __future__ import annotations

import os
import subprocess
from functools import cache
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[3]
SYSTEM_PYTHON = "/usr/bin/python3"
INSTALL = (
    "apt-get install python3-opencv python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-rtsp gstreamer1.0-libav "
    "gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly"
)
# Exits with what is missing
LOOK = """
import sys
import cv2, gi
gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gst, GstRtspServer
Gst.init(None)
if not any("GStreamer" in line and "YES" in line for line in cv2.getBuildInformation().splitlines()):
    sys.exit("its OpenCV was built without GStreamer")
words = "x264enc x265enc vp9enc avdec_h264 avdec_h265 h264parse rtspclientsink srtsink mpegtsmux rtph264pay".split()
if missing := [word for word in words if Gst.ElementFactory.find(word) is None]:
    sys.exit(f"GStreamer has no {', '.join(missing)}")
"""
CHECKS = ("files", "broken", "udp", "srt", "rtsp", "rtsp_away", "decoders", "rtsp_sources")


@cache
def why_not() -> str:
    """What is missing; "" if nothing is."""
    if not Path(SYSTEM_PYTHON).exists():
        return f"there is no {SYSTEM_PYTHON}"
    looked = subprocess.run([SYSTEM_PYTHON, "-c", LOOK], capture_output=True, text=True, check=False)
    return looked.stderr.strip().rpartition("\n")[2] if looked.returncode else ""


@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS)
def test_for_real(check: str) -> None:
    if reason := why_not():
        pytest.skip(f"{reason}: {INSTALL}")
    words = [SYSTEM_PYTHON, str(CHECKOUT / "tests/support/gstreamer_real.py"), check]
    env = {**os.environ, "PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(words, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert ran.stdout == f"{check}\n"
