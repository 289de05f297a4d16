"""Taking the NMS off a graph while it is calibrated, and putting it back unchanged."""

from __future__ import annotations

from dataclasses import dataclass

from onnx import FunctionProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from gfl_edge.backends.onnx_cpu import NMS_OP
from gfl_edge.spec import CANDIDATE_NAMES, RAW_NAMES, ModelSpec


@dataclass(frozen=True)
class Tail:
    """What was cut off: GflNms as a function or as the plugin's node, or nothing."""

    nodes: tuple[NodeProto, ...]
    functions: tuple[FunctionProto, ...]
    outputs: tuple[ValueInfoProto, ...]


def cut_nms(model: ModelProto, spec: ModelSpec) -> Tail:
    """Cut the node GflNms off ``model``, in place: what enters it becomes the output."""
    graph = model.graph
    nodes = [node for node in graph.node if node.op_type == NMS_OP]
    tail = Tail(
        tuple(NodeProto.FromString(node.SerializeToString()) for node in nodes),
        tuple(FunctionProto.FromString(function.SerializeToString()) for function in model.functions),
        tuple(ValueInfoProto.FromString(value.SerializeToString()) for value in graph.output),
    )
    if not nodes:
        return tail
    for node in nodes:
        graph.node.remove(node)
    del graph.output[:], model.functions[:]
    raw = spec.nms == "plugin"
    widths = (spec.num_classes, 4 * (spec.reg_max + 1)) if raw else (4, spec.num_classes)
    dtype = TensorProto.FLOAT16 if raw and spec.precision == "fp16" else TensorProto.FLOAT
    for name, width in zip(RAW_NAMES if raw else CANDIDATE_NAMES, widths, strict=True):
        shape = ["batch", "anchors" if spec.short_long else spec.num_anchors, width]
        graph.output.append(helper.make_tensor_value_info(name, dtype, shape))
    return tail


def add_nms(model: ModelProto, tail: Tail) -> None:
    """Put back what :func:`cut_nms` cut off, in place."""
    model.graph.node.extend(tail.nodes)
    model.functions.extend(tail.functions)
    del model.graph.output[:]
    model.graph.output.extend(tail.outputs)
