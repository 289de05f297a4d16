"""What the commands do, done once: an image, a video, and the bundled detector in each library that is installed."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from gfl_edge import optional
from gfl_edge.detector import Detector
from gfl_edge.doctor.findings import Finding
from gfl_edge.doctor.opencv import CV2
from gfl_edge.errors import BackendError, MissingDependencyError
from gfl_edge.media.draw import draw_detections
from gfl_edge.media.images import read_image, write_image
from gfl_edge.media.opening import open_source
from gfl_edge.media.sinks import CODEC_OF, VideoSink
from gfl_edge.ops.preprocess import Image

SECTION = "Trial"
LIBRARIES: tuple[Literal["openvino", "onnxruntime"], ...] = ("openvino", "onnxruntime")
FRAMES = 5
HW = (240, 320)
TOLERANCE = 32  # of the mean of an image after JPEG or a video codec


def examine() -> list[Finding]:
    """Write and read an image and videos, and detect in a frame; what is not installed is left out."""
    if not optional.available("cv2"):
        return []
    frame = made_frame()
    findings = []
    with tempfile.TemporaryDirectory(prefix="gfl-edge-doctor-") as name:
        folder, reinstall = Path(name), CV2.reinstall
        findings.append(_tried("image", partial(_try_image, folder / "image.jpg", frame), reinstall))
        for suffix in CODEC_OF:
            findings.append(_tried(f"video {suffix}", partial(_try_video, folder / f"clip{suffix}", frame), reinstall))
    for module in LIBRARIES:
        if optional.available("onnx") and optional.available(module):
            upgrade = f"pip install --upgrade 'gfl-edge[{optional.EXTRA_OF[module]}]'"
            findings.append(_tried(detection_by(module), partial(_try_detector, module, frame), upgrade))
    return findings


def detection_by(module: str) -> str:
    """Name of the finding on the bundled detector in a library."""
    return f"detection by {module}"


def made_frame() -> Image:
    """An image in which there is something to see, uint8 ``[240, 320, 3]`` BGR."""
    rows, columns = np.mgrid[: HW[0], : HW[1]]
    return np.stack([rows, columns // 2, (rows // 32 + columns // 32) % 2 * 200], axis=-1).astype(np.uint8)


def _tried(name: str, attempt: Callable[[], str], remedy: str) -> Finding:
    """The finding on an attempt, which returns what it did or raises."""
    start = time.perf_counter()
    try:
        done = attempt()
    except Exception as error:  # libraries of all ages can fail in any way
        lines = str(error).strip().splitlines() or ["without a message"]
        said = error.args and isinstance(error, (BackendError, MissingDependencyError))
        kind = "" if said else f"{type(error).__name__}: "
        return Finding(SECTION, name, "problem", f"failed: {kind}{lines[0]}", remedy)
    return Finding(SECTION, name, "ok", f"{done} in {1000 * (time.perf_counter() - start):.0f} ms")


def _try_image(path: Path, frame: Image) -> str:
    write_image(path, frame)
    _check_alike(read_image(path), frame)
    return "written and read"


def _try_video(path: Path, frame: Image) -> str:
    with VideoSink(path, 10) as sink:
        for index in range(FRAMES):
            sink.write(frame, index / 10)
    with open_source(path) as source:
        frames = [read.image for read in source]
    if len(frames) != FRAMES:
        raise RuntimeError(f"{FRAMES} frames were written and {len(frames)} read")
    _check_alike(frames[-1], frame)
    return f"{FRAMES} frames written and read"


def _check_alike(found: Image, expected: Image) -> None:
    difference = np.abs(found.astype(np.float32).mean() - expected.astype(np.float32).mean())
    if found.shape != expected.shape or difference > TOLERANCE:
        raise RuntimeError(f"what was read is another image than was written: {found.shape}, {difference:.0f} brighter")


def _try_detector(module: Literal["openvino", "onnxruntime"], frame: Image) -> str:
    with Detector(backend=module) as detector:
        detections = detector(frame)
        draw_detections(frame, detections)
        if not np.isfinite(detections.scores).all():
            raise RuntimeError("the scores are no numbers")
        return f"{detector.spec.name} ran and drew"
