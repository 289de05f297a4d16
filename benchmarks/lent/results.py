"""Whether the kernels give on this GPU what NumPy and OpenCV give, by every road to them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from benchmarks.kernels.library import DeviceLibrary, KernelLibrary, build_for_gpu, nms_params
from benchmarks.kernels.memory import Array
from benchmarks.kernels.production import ProductionLibrary
from gfl_edge.cuda import open_device
from gfl_edge.cuda.interface import CudaDevice
from gfl_edge.cuda.kernels import resize_params
from gfl_edge.ops.boxes import multiclass_nms
from gfl_edge.ops.preprocess import resize_into
from gfl_edge.optional import available
from gfl_edge.spec import ModelSpec, ResizeRule

SIZES = ((50, 3), (500, 80), (3598, 80), (8400, 80), (22400, 80), (22400, 365))  # anchors, classes
CASES = tuple((*size, seed) for size in SIZES for seed in range(8))
SMALL_CASES = ((50, 3, 0), (500, 80, 1))
# Captured into a graph; whether kernels may begin before those ahead of them have ended
ROADS = {
    "NVRTC and cuLaunchKernel": (False, True),
    "the same in a CUDA graph": (True, True),
    "one kernel after another": (False, False),
    "one kernel after another in a CUDA graph": (True, False),
}
FRAMES = ((1080, 1920), (480, 640), (333, 501))
INPUT_HW = (416, 416)
RULES: tuple[ResizeRule, ...] = ("stretch", "letterbox", "fit")
RULE: dict[str, Any] = {"score_threshold": 0.05, "iou_threshold": 0.6, "max_candidates": 1000, "max_detections": 100}


def measure(folder: Path, small: bool) -> dict[str, Any]:
    """By road, how many calls gave the same bits, and the first that did not; what resizing differs by."""
    device = open_device("cuda-python")
    cases = SMALL_CASES if small else CASES
    found: dict[str, Any] = {}
    for name, library in _roads(folder, device, small):
        found[name] = {**_compare(library, cases), "resize": _resize(library, FRAMES[2:] if small else FRAMES)}
    return found


def _roads(folder: Path, device: CudaDevice, small: bool) -> Iterator[tuple[str, KernelLibrary]]:
    for name, (captured, overlapping) in ROADS.items():
        with closing(ProductionLibrary(device, captured, overlapping)) as production:
            yield name, production
    if shutil.which("nvcc") and not small:
        yield "nvcc", DeviceLibrary(build_for_gpu(folder), device)


def _compare(library: KernelLibrary, cases: tuple[tuple[int, int, int], ...]) -> dict[str, Any]:
    same, different = 0, []
    for anchors, classes, seed in cases:
        boxes, scores, expected = _case(anchors, classes, seed)
        # Boxes stand for their sigmas, too: each detection has to have those of its own point
        found = library.nms(nms_params(scores, **RULE), scores=scores, boxes=boxes, sigmas=boxes)
        if _is(found, expected) and np.array_equal(found["det_sigmas"], found["det_boxes"]):
            same += 1
        else:
            different.append({"anchors": anchors, "classes": classes, "seed": seed})
    return {"same": same, "different": different[:10]}


@cache
def _case(anchors: int, classes: int, seed: int) -> tuple[Array, Array, tuple[Array, ...]]:
    """Boxes that overlap, scores and what NumPy finds.

    Few scores are high and many alike, so that their place decides; of an odd seed all, and too many to be ranked.
    """
    random = np.random.default_rng(seed)
    corner = random.uniform(0, 400, (1, anchors, 2))
    boxes = np.concatenate((corner, corner + random.exponential(50, corner.shape)), axis=2).astype(np.float32)
    scores = np.round(random.uniform(0, 1, (1, anchors, classes)) ** 12, 0 if seed % 2 else 2).astype(np.float32)
    with np.errstate(all="ignore"):
        return boxes, scores, multiclass_nms(boxes[0], scores[0], **RULE)


def _resize(library: KernelLibrary, frames: tuple[tuple[int, int], ...]) -> dict[str, Any]:
    """By rule, gray levels between the kernel and OpenCV at most, and the share of pixels that are over one apart."""
    if not available("cv2"):
        return {"not_measured": "OpenCV is not installed"}
    found: dict[str, Any] = {}
    for rule in RULES:
        apart = [_apart(library, frame_hw, rule) for frame_hw in frames]
        share = max(float((each > 1).any(axis=2).mean()) for each in apart)
        found[rule] = {"most": max(int(each.max()) for each in apart), "over_one": round(share, 5)}
    return found


def _apart(library: KernelLibrary, frame_hw: tuple[int, int], rule: ResizeRule) -> Array:
    frame = np.random.default_rng(0).integers(0, 256, (*frame_hw, 3), np.uint8)
    expected = np.empty((*INPUT_HW, 3), np.uint8)
    placement = resize_into(frame, expected, rule)
    spec = cast(ModelSpec, SimpleNamespace(resize=rule))  # of a whole one, more would have to be installed
    return np.abs(library.resize(resize_params(spec, placement, INPUT_HW), frame).astype(int) - expected)


def _is(found: dict[str, Array], expected: tuple[Array, ...]) -> bool:
    count = int(found["num_dets"][0, 0])
    if count != len(expected[1]):
        return False
    names = ("det_boxes", "det_scores", "det_classes")
    return all(np.array_equal(found[name][0, :count], values) for name, values in zip(names, expected, strict=True))
