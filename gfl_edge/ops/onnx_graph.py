"""Changing the graph of an ONNX file of the gfl_edge contract."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gfl_edge import optional
from gfl_edge.spec import CANDIDATE_NAMES, ModelSpec

NMS_OP = "GflNms"  # the node's type, and the plugin's name in TensorRT's registry


def without_nms(model: Any, spec: ModelSpec) -> ModelSpec:
    """Cut the GflNms node off ``model`` (``onnx.ModelProto``), in place: boxes and scores become its outputs.

    Returns:
        The spec of what is left.
    """
    helper, proto = optional.load("onnx.helper"), optional.load("onnx").TensorProto
    for node in [node for node in model.graph.node if node.op_type == NMS_OP]:
        model.graph.node.remove(node)
    del model.graph.output[:], model.functions[:]
    for name, width in zip(CANDIDATE_NAMES, (4, spec.num_classes), strict=True):
        shape = ["batch", "anchors" if spec.short_long else spec.num_anchors, width]
        model.graph.output.append(helper.make_tensor_value_info(name, proto.FLOAT, shape))
    return replace(spec, nms="none")
