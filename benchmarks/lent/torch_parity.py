"""How far what a PyTorch network and our kernels find is from the reference, step by step."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.lent.torch_backend import CLASSES, EDGES, IMAGES, TorchBackend
from benchmarks.lent.torch_network import RawNetwork
from gfl_edge.ops import postprocess
from gfl_edge.ops.boxes import multiclass_nms
from gfl_edge.ops.decode import decode
from gfl_edge.ops.preprocess import Image, single_input
from gfl_edge.spec import ModelSpec

CLOSE_PX, CLOSE_SCORE = 1e-3, 1e-6  # what the tests of the kernels allow


def of_kernels(backend: TorchBackend, images: Image) -> dict[str, Any]:
    """Decode and NMS by the kernels against NumPy's, on the very same raw maps.

    The two have exponentials of their own, so that the last bits of scores and boxes may differ.
    """
    spec = backend.spec
    outputs = {name: array.copy() for name, array in backend.run(images).items()}
    found = postprocess.detections(outputs, 0, spec, spec.input_hw)
    cls_logits, reg_logits = raw_maps(backend)
    boxes = decode(reg_logits, spec.input_hw, spec.strides, spec.point_offset)
    scores = postprocess.sigmoid(cls_logits)
    rule = ("score_threshold", "iou_threshold", "max_candidates", "max_detections")
    expected = multiclass_nms(boxes, scores, **{name: getattr(spec, name) for name in rule})
    return {
        "compared": "decode and NMS by the kernels and by NumPy, both of the raw maps that the network left",
        "candidates": int(np.count_nonzero(scores > spec.score_threshold)),
        **_differences((found.boxes, found.scores, found.classes), expected),
    }


def raw_maps(backend: TorchBackend) -> list[NDArray[np.float32]]:
    """What the network left in the last run: class logits ``[A, C]``, and those of edges."""
    return [backend.read(name)[0].astype(np.float32) for name in (CLASSES, EDGES)]


def _differences(found: tuple[NDArray[Any], ...], expected: tuple[NDArray[Any], ...]) -> dict[str, Any]:
    counts = {"detections": len(found[2]), "expected_detections": len(expected[2])}
    if not np.array_equal(found[2], expected[2]):
        return {**counts, "same_order": False, "matched": _matched(found, expected)}
    apart = [np.abs(own - want).max(initial=0) for own, want in zip(found[:2], expected[:2], strict=True)]
    return {
        **counts,
        "same_order": True,
        "same_bits": all(np.array_equal(*pair) for pair in zip(found, expected, strict=True)),
        "max_box_difference_px": float(apart[0]),
        "max_score_difference": float(apart[1]),
    }


def _matched(found: tuple[NDArray[Any], ...], expected: tuple[NDArray[Any], ...]) -> int:
    """How many of the expected ones are there, at whatever place."""
    boxes = np.abs(found[0][None] - expected[0][:, None]).max(axis=2, initial=0) <= CLOSE_PX
    scores = np.abs(found[1][None] - expected[1][:, None]) <= CLOSE_SCORE
    return int((boxes & scores & (found[2][None] == expected[2][:, None])).any(axis=1).sum())


def of_resizing(backend: TorchBackend, frame: Image) -> dict[str, Any]:
    """What lies in the network's input after our kernel has resized a frame, against resizing on the host."""
    backend.run_frames([frame], backend.spec.input_hw)
    difference = np.abs(backend.read(IMAGES).astype(int) - single_input(frame, backend.spec))
    return {
        "frame_hw": frame.shape[:2],
        "rule": backend.spec.resize,
        "bytes": difference.size,
        "bytes_that_differ": int(np.count_nonzero(difference)),
        "max_difference": int(difference.max()),
    }


@torch.no_grad()
def of_rounding(found: list[NDArray[np.float32]], exact: RawNetwork, spec: ModelSpec, images: Tensor) -> dict[str, Any]:
    """Raw maps of a network against those of the same in float32, without TF32.

    Args:
        found: the raw maps, as :func:`raw_maps` gives them.
        exact: the network in float32.
        spec: its description.
        images: uint8 ``[1, H, W, 3]`` BGR that gave them, where the network is.
    """
    with _without_tf32():
        wanted = [maps[0].cpu().numpy() for maps in exact(images)]
    scores, boxes = _decoded(found, spec)
    exact_scores, exact_boxes = _decoded(wanted, spec)
    pairs = np.maximum(scores, exact_scores) > spec.score_threshold
    anchors = pairs.any(axis=1)
    edges = np.abs(boxes - exact_boxes)[anchors]
    return {
        "signal_to_noise_db": {
            name: _decibels(*pair) for name, *pair in zip((CLASSES, EDGES), found, wanted, strict=True)
        },
        "not_finite": int(sum(np.count_nonzero(~np.isfinite(level)) for level in found)),
        "max_score_difference": float(np.abs(scores - exact_scores)[pairs].max(initial=0)),
        "max_box_difference_px": float(edges.max(initial=0)),
        "median_box_difference_px": float(np.median(edges)) if edges.size else 0.0,
        "pairs_above_threshold": int(np.count_nonzero(pairs)),
    }


class _without_tf32:  # noqa: N801  # a context
    """Convolutions and products of float32 as such, which PyTorch rounds to TF32 from sm80 on."""

    def __enter__(self) -> None:
        self._before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False

    def __exit__(self, *_: object) -> None:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = self._before


def _decoded(maps: list[NDArray[np.float32]], spec: ModelSpec) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    return postprocess.sigmoid(maps[0]), decode(maps[1], spec.input_hw, spec.strides, spec.point_offset)


def _decibels(found: NDArray[np.float32], wanted: NDArray[np.float32]) -> float | None:
    """Power of what the exact values vary by, over that of the difference; None without a difference."""
    noise = float(np.square(found.astype(np.float64) - wanted).mean())
    return round(10 * np.log10(float(wanted.astype(np.float64).var()) / noise), 2) if noise else None
