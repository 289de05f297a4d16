"""Taking the NMS off a graph while it is calibrated, and putting it back unchanged."""

from __future__ import annotations

from dataclasses import dataclass

from onnx import FunctionProto, ModelProto, NodeProto, ValueInfoProto

from gfl_edge.ops.onnx_graph import copy_model, without_nms
from gfl_edge.ops.onnx_limits import NMS_OP
from gfl_edge.spec import ModelSpec


@dataclass(frozen=True)
class Tail:
    """What was cut off: GflNms with its body and the outputs after it, or nothing."""

    nodes: tuple[NodeProto, ...] = ()
    functions: tuple[FunctionProto, ...] = ()
    outputs: tuple[ValueInfoProto, ...] = ()


def cut_nms(model: ModelProto, spec: ModelSpec) -> Tail:
    """Cut the node GflNms off ``model``, in place: boxes and scores become the outputs."""
    if spec.nms != "graph":
        return Tail()
    whole = copy_model(model)
    without_nms(model, spec)
    nodes = tuple(node for node in whole.graph.node if node.op_type == NMS_OP)
    return Tail(nodes, tuple(whole.functions), tuple(whole.graph.output))


def add_nms(model: ModelProto, tail: Tail) -> None:
    """Put back what :func:`cut_nms` cut off, in place, in the opset of ``model``."""
    if tail.nodes:
        model.graph.node.extend(tail.nodes)
        model.functions.extend(tail.functions)
        opset = next(opset.version for opset in model.opset_import if opset.domain == "")
        for function in model.functions:  # the model's may have risen for FP16 scales
            for own in function.opset_import:
                if own.domain == "":
                    own.version = opset
        del model.graph.output[:]
        model.graph.output.extend(tail.outputs)
