"""Whether what an ONNX model computes on the way to its outputs is what its description says."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gfl_edge.ops.onnx_limits import NMS_OP, LimitError
from gfl_edge.ops.onnx_ports import check_tensor, output_shapes

if TYPE_CHECKING:
    from gfl_edge.spec import ExportedNms, ModelSpec

MAX_ROUNDING = 1e-6  # of a threshold, which a node has in float32
BEFORE_NMS: dict[ExportedNms, ExportedNms] = {"graph": "none", "plugin": "raw"}


def check_inside(model: Any, graph: Any, spec: ModelSpec) -> None:
    """Refuse another number of classes, points or bins before NMS in the graph, another NMS, and other thresholds.

    Args:
        model: ``onnx.ModelProto``.
        graph: the same with types and shapes, of :func:`gfl_edge.ops.onnx_limits.check_limits`. What could not be
            inferred is let pass.
        spec: the model's description.

    Raises:
        LimitError: it has.
    """
    _check_nms(model, spec)
    inside = {value.name: value for value in (*graph.value_info, *graph.output)}
    if spec.has_nms:
        for name, (kinds, shape) in output_shapes(replace(spec, nms=BEFORE_NMS[spec.nms])).items():
            if name in inside:
                check_tensor(inside[name], kinds, shape)
    _check_bins(graph, inside, spec)
    images = graph.input[0].type.tensor_type.shape.dim
    if spec.short_long is not None and any(side.HasField("dim_value") for side in images[1:3]):
        raise LimitError("takes images of one size, its description says that their size is dynamic")


def _check_nms(model: Any, spec: ModelSpec) -> None:
    nodes = [node for node in model.graph.node if node.op_type == NMS_OP]
    in_file = any(function.name == NMS_OP for function in model.functions)
    found = "no NMS" if not nodes else "NMS as a function" if in_file else "NMS by the plugin"
    expected = {"graph": "NMS as a function", "plugin": "NMS by the plugin"}.get(spec.nms, "no NMS")
    if found != expected:
        raise LimitError(f"has {found}, its description says nms {spec.nms}")
    for attribute in (attribute for node in nodes for attribute in node.attribute):
        if attribute.name in ("score_threshold", "iou_threshold"):
            described = getattr(spec, attribute.name)
            if not abs(attribute.f - described) <= MAX_ROUNDING:  # NaN, too
                raise LimitError(f"has the {attribute.name} {attribute.f:g}, its description says {described:g}")


def _check_bins(graph: Any, inside: dict[str, Any], spec: ModelSpec) -> None:
    """Of the distributions whose softmax the decode in the graph takes, ``[N, 4, bins, A]``."""
    made = (node.output[0] for node in graph.node if node.op_type == "Softmax" and node.output)
    shapes = [inside[name].type.tensor_type.shape.dim for name in made if name in inside]
    found = {dims[2].dim_value for dims in shapes if len(dims) == 4 and dims[1].dim_value == 4} - {0}
    if found - {spec.reg_max + 1}:
        raise LimitError(f"has {max(found)} bins per edge, its description says reg_max {spec.reg_max}, one less")
