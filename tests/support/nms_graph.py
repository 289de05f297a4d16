"""The model-local function GflNms in a graph of its own, run by ONNX Runtime and by OpenVINO as the backend does."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from onnx.inliner import inline_local_functions

from gfl_edge.backends.tied_scores import with_ordered_topk
from gfl_edge.ops.nms_graph import ROUNDS, append_nms
from gfl_edge.spec import CANDIDATE_NAMES, DETECTION_NAMES
from tests.support.tiny_spec import TINY

CLASSES = 3
SPEC = dataclasses.replace(
    TINY, class_names=("a", "b", "c"), input_hw=(32, 32), strides=(8,), max_candidates=40, max_detections=20
)
ANCHORS = SPEC.num_anchors  # 16
RULE = {key: getattr(SPEC, key) for key in ("score_threshold", "iou_threshold", "max_candidates", "max_detections")}
ODD = np.array([-np.inf, -1e30, -1, -0.0, 0, 1e-30, 0.5, 1, 7, 2**20, 2**21, 3e38, np.inf, np.nan], np.float32)


def spoil(rng, share, *arrays):
    """Put odd numbers into such a share of the places, in place."""
    for array in arrays:
        odd = rng.random(array.shape) < share
        array[odd] = rng.choice(ODD, np.count_nonzero(odd))


def graph(spec=SPEC, rounds=ROUNDS):
    """boxes and scores pass through Identity into GflNms."""
    shapes = {"b": ["batch", spec.num_anchors, 4], "s": ["batch", spec.num_anchors, spec.num_classes]}
    nodes = [helper.make_node("Identity", [a], [b]) for a, b in zip(shapes, CANDIDATE_NAMES, strict=True)]
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    model = helper.make_model(
        helper.make_graph(nodes, "g", inputs, []), opset_imports=[helper.make_opsetid("", 18)], ir_version=10
    )
    append_nms(model, spec, rounds)
    onnx.checker.check_model(model, full_check=True)
    return model


@functools.cache
def session(spec=SPEC, rounds=ROUNDS):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(graph(spec, rounds).SerializeToString(), options)


def run(boxes, scores, spec=SPEC, rounds=ROUNDS):
    outputs = session(spec, rounds).run(DETECTION_NAMES, {"b": boxes, "s": scores})
    return dict(zip(DETECTION_NAMES, outputs, strict=True))


@functools.cache
def openvino_request(spec=SPEC, batch=2):
    openvino = pytest.importorskip("openvino", reason="OpenVINO is not installed")
    model = inline_local_functions(with_ordered_topk(graph(spec)))
    core = openvino.Core()
    network = core.read_model(model.SerializeToString(), b"")
    network.reshape({"b": [batch, spec.num_anchors, 4], "s": [batch, spec.num_anchors, spec.num_classes]})
    return core.compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).create_infer_request()


def run_openvino(boxes, scores, spec=SPEC):
    request = openvino_request(spec, len(boxes))
    request.infer({"b": boxes, "s": scores})
    return {name: request.get_tensor(name).data.copy() for name in DETECTION_NAMES}


def random_boxes(rng, batch=2, size=8):
    corner = rng.integers(0, size, (batch, ANCHORS, 2))
    return np.concatenate((corner, corner + rng.integers(0, size, (batch, ANCHORS, 2))), axis=2).astype(np.float32)
