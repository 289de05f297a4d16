"""ONNX files of the contract of a few kilobytes: a pooled image, one convolution, and what each form of NMS needs."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from gfl_edge.ops.nms_graph import append_nms
from gfl_edge.spec import CANDIDATE_NAMES, INPUT_NAME, RAW_NAMES, SIGMAS, ExportedNms, ModelSpec
from tests.support.tiny_spec import TINY

SPEC = dataclasses.replace(TINY, input_hw=(32, 32), strides=(8,), max_candidates=20, max_detections=10)
ANCHORS = SPEC.num_anchors  # 16
REG = 4 * (SPEC.reg_max + 1)


def tiny_onnx(nms: ExportedNms, spec: ModelSpec = SPEC) -> onnx.ModelProto:
    """A model that finds something in every image; ``nms`` is "graph", "none" or "raw"."""
    spec = dataclasses.replace(spec, nms=nms)
    widths = (spec.num_classes, REG if nms == "raw" else 4)
    names = RAW_NAMES if nms == "raw" else CANDIDATE_NAMES[::-1]
    shapes = [["batch", ANCHORS, width] for width in widths]
    outputs = [helper.make_tensor_value_info(*one) for one in zip(names, [TensorProto.FLOAT] * 2, shapes, strict=True)]
    sigmas = spec.edge_sigma and nms != "raw"
    if sigmas:
        outputs.append(helper.make_tensor_value_info(SIGMAS, TensorProto.FLOAT, shapes[1]))
    images = helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, ["batch", *spec.input_hw, 3])
    nodes, weights = _body(widths, names, nms == "raw")
    if sigmas:  # how far the box was moved
        nodes.append(helper.make_node("Abs", ["moves"], [SIGMAS]))
    graph = helper.make_graph(nodes, "tiny", [images], outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    if nms == "graph":
        append_nms(model, spec)
    helper.set_model_props(model, spec.to_metadata())
    return model


def fix_batch(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model, for one image at a time, as some that were adopted are."""
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    return model


def _body(
    widths: tuple[int, int], names: tuple[str, ...], raw: bool
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    rng = np.random.default_rng(3)
    values = {
        "w": rng.normal(0, 0.01, (sum(widths), 3, 1, 1)).astype(np.float32),
        "flat": np.array([0, sum(widths), -1], np.int64),
        "widths": np.array(widths, np.int64),
        "around": np.float32([[[8, 8, 24, 24]]]),
    }
    make, node = helper.make_node, []
    node.append(make("Cast", [INPUT_NAME], ["float"], to=TensorProto.FLOAT))
    node.append(make("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]))
    node.append(make("AveragePool", ["planes"], ["pooled"], kernel_shape=[8, 8], strides=[8, 8]))
    node.append(make("Conv", ["pooled", "w"], ["maps"], "conv"))
    node.append(make("Reshape", ["maps", "flat"], ["columns"]))
    node.append(make("Transpose", ["columns"], ["rows"], perm=[0, 2, 1]))
    node.append(make("Split", ["rows", "widths"], list(names) if raw else ["logits", "moves"], axis=2))
    if raw:
        del values["around"]
    else:
        node.append(make("Sigmoid", ["logits"], [names[0]]))
        node.append(make("Add", ["moves", "around"], [names[1]]))
    return node, [numpy_helper.from_array(array, name) for name, array in values.items()]
