"""A tiny model as an ONNX file and as engines, and what its outputs and frames look like."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gfl_edge.engine.sidecar import Sidecar, sidecar_path
from gfl_edge.errors import InputError, MissingDependencyError
from gfl_edge.ops.boxes import multiclass_nms
from gfl_edge.ops.decode import decode
from gfl_edge.ops.preprocess import AnyFrame, resize_into
from gfl_edge.spec import ModelSpec
from tests.support.tiny_spec import TINY

VERSION = "10.13.2.6"
SPEC = dataclasses.replace(TINY, class_names=("cat",), input_hw=(32, 64), strides=(8,), max_detections=5)
HW = SPEC.input_hw
DECODED = dataclasses.replace(SPEC, nms="none", class_names=("cat", "dog"), max_candidates=40, score_threshold=0.3)
RAW = dataclasses.replace(DECODED, nms="raw")
RAW_HALF = dataclasses.replace(RAW, precision="fp16")
WITHOUT_NMS = pytest.mark.parametrize("spec", [DECODED, RAW, RAW_HALF], ids=["none", "raw", "raw-fp16"])


def write_engine(path: Path, content: bytes, sidecar: Sidecar, **changes: Any) -> Path:
    """Write an engine and its sidecar, in which ``changes`` replace fields."""
    path.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    described = dataclasses.replace(sidecar, **{"engine_sha256": digest, **changes})
    sidecar_path(path).write_bytes(described.to_json())
    return path


def tiny_onnx(path: Path) -> ModelSpec:
    """A real detector-like network without NMS: one convolution whose channels are 4 box edges and a score."""
    onnx = pytest.importorskip("onnx")
    helper, proto = onnx.helper, onnx.TensorProto
    spec = dataclasses.replace(SPEC, nms="none")
    weights = np.random.default_rng(3).normal(0, 0.01, (5, 3, 8, 8)).astype(np.float32)
    initializers = [
        onnx.numpy_helper.from_array(weights, "weights"),
        onnx.numpy_helper.from_array(np.array([0, 5, -1]), "shape"),
        onnx.numpy_helper.from_array(np.array([4, 1]), "parts"),
    ]
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=proto.FLOAT),
        helper.make_node("Transpose", ["float"], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["nchw", "weights"], ["maps"], strides=[8, 8]),
        helper.make_node("Reshape", ["maps", "shape"], ["rows"]),
        helper.make_node("Transpose", ["rows"], ["points"], perm=[0, 2, 1]),
        helper.make_node("Split", ["points", "parts"], ["boxes", "scores"], axis=2),
    ]
    images = helper.make_tensor_value_info("images", proto.UINT8, ["batch", *spec.input_hw, 3])
    outputs = [
        helper.make_tensor_value_info(name, proto.FLOAT, ["batch", spec.num_anchors, width])
        for name, width in (("boxes", 4), ("scores", 1))
    ]
    graph = helper.make_graph(nodes, "tiny", [images], outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, spec.to_metadata())
    onnx.save(model, str(path))
    return spec


def build_tiny(folder: Path, targets: tuple[str, ...]) -> Path:
    """A real engine; skips where no TensorRT is installed, or none that builds for these GPUs."""
    from gfl_edge.engine.build import build_engine, plan

    tiny_onnx(folder / "tiny.onnx")
    try:
        settled = plan(folder / "tiny.onnx", targets=targets, max_batch=3)
    except (MissingDependencyError, InputError) as error:
        pytest.skip(str(error))
    return build_engine(settled, folder, progress=False)[0]


def random_frames(*sizes: tuple[int, int], seed: int = 0) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [random.integers(0, 256, (*size, 3), np.uint8) for size in sizes]


def resized(frames: Sequence[AnyFrame], spec: ModelSpec = SPEC) -> np.ndarray:
    images = np.empty((len(frames), *spec.input_hw, 3), np.uint8)
    for frame, slot in zip(frames, images, strict=True):
        resize_into(frame, slot, spec.resize)
    return images


def detections_on_host(outputs: Any, spec: ModelSpec) -> list[tuple[np.ndarray, ...]]:
    """By the NumPy reference, from an engine's own outputs."""
    if spec.nms == "raw":
        scores = 1 / (1 + np.exp(-outputs["cls_logits"].astype(np.float32)))
        boxes = decode(outputs["reg_logits"].astype(np.float32), spec.input_hw, spec.strides, spec.point_offset)
    else:
        boxes, scores = outputs["boxes"], outputs["scores"]
    names = ("score_threshold", "iou_threshold", "max_candidates", "max_detections")
    rules = {name: getattr(spec, name) for name in names}
    return [multiclass_nms(*image, **rules) for image in zip(boxes, scores, strict=True)]
