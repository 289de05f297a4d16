"""Reading, changing and running the graph of an ONNX model; models are ``onnx.ModelProto`` throughout."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from gfl_edge import optional
from gfl_edge.ops.onnx_limits import NMS_OP
from gfl_edge.spec import INPUT_NAME, ModelSpec


class OnnxGraph:
    """Which node makes and which nodes read each tensor, as the graph was when this was made.

    Attributes:
        model: whose graph it is.
        nodes: of the graph, in topological order.
        initializers: tensor -> its values, as ``onnx.TensorProto``.
        producers: tensor -> the node that makes it; neither inputs nor initializers have one.
        readers: tensor -> the nodes that take it, as often as they do, in the order in which tensors are first read.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.nodes = tuple(model.graph.node)
        self.initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        self.producers = {output: node for node in self.nodes for output in node.output}
        self.readers: dict[str, list[Any]] = {}
        for node in self.nodes:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)


def copy_model(model: Any) -> Any:
    """A copy that can be changed."""
    copy = type(model)()
    copy.CopyFrom(model)
    return copy


def remove_unused(model: Any) -> None:
    """Remove the initializers that no node reads, in place."""
    used = {name for node in model.graph.node for name in node.input}
    for tensor in [tensor for tensor in model.graph.initializer if tensor.name not in used]:
        model.graph.initializer.remove(tensor)


def tensor_types(model: Any) -> dict[str, int]:
    """The element type of every tensor whose type can be inferred."""
    graph = optional.load("onnx.shape_inference").infer_shapes(model).graph
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    values = (*graph.value_info, *graph.input, *graph.output)
    return types | {value.name: value.type.tensor_type.elem_type for value in values}


def fixed_batch(model: Any) -> int | None:
    """The images that every run of a model of the contract takes; None: any, as of what this project exports."""
    dims = [dim for value in model.graph.input if value.name == INPUT_NAME for dim in value.type.tensor_type.shape.dim]
    return int(dims[0].dim_value) if dims and dims[0].HasField("dim_value") else None


def open_session(model: Any, outputs: Iterable[str] = (), simulated: bool = False) -> Any:
    """ONNX Runtime on the CPU; ``model`` is not changed.

    Args:
        model: to run.
        outputs: tensors of the graph that are to be among the outputs.
        simulated: compute Q/DQ pairs as they are written, in float, and not by INT8 kernels, which differ by processor.
    """
    onnxruntime, value_info = optional.load("onnxruntime"), optional.load("onnx").ValueInfoProto
    copy = copy_model(model)
    present = {output.name for output in copy.graph.output}
    copy.graph.output.extend(value_info(name=name) for name in outputs if name not in present)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.disable_quant_qdq", str(int(simulated)))
    return onnxruntime.InferenceSession(copy.SerializeToString(), options, providers=["CPUExecutionProvider"])


def without_nms(model: Any, spec: ModelSpec) -> ModelSpec:
    """Cut the GflNms node off ``model``, in place: boxes and scores, and sigmas if there are, become its outputs.

    Returns:
        The spec of what is left.
    """
    helper, proto = optional.load("onnx.helper"), optional.load("onnx").TensorProto
    for node in [node for node in model.graph.node if node.op_type == NMS_OP]:
        model.graph.node.remove(node)
    del model.graph.output[:], model.functions[:]
    for name, width in zip(spec.candidate_names, (4, spec.num_classes, 4), strict=False):
        shape = ["batch", "anchors" if spec.short_long else spec.num_anchors, width]
        model.graph.output.append(helper.make_tensor_value_info(name, proto.FLOAT, shape))
    return replace(spec, nms="none")
