"""What an ONNX model may consist of, so that loading and running it ends, in bounded memory, without a signal.

The libraries that run models were not made for hostile ones. Each of these ended, hung or filled a process, with
OpenVINO 2026.4 and ONNX Runtime 1.31: a Loop of 10^18 rounds, functions that call each other 2^40 times, nested If, an
opset of 2^31, GatherND beyond its data, the least integer divided by -1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

from gfl_edge import optional

NMS_OP = "GflNms"  # the node's type, and the plugin's name in TensorRT's registry
DOMAIN = "gfl_edge"  # of the function and the plugin GflNms
MIN_OPSET = 11
MAX_ONNX_BYTES = (1 << 31) - 1  # of a file: Protobuf reads no more
MAX_NODES = 10_000  # with those of functions; the largest published model has 600
MAX_TENSOR_BYTES = 1 << 29  # of an intermediate of one image
MAX_FACTOR = 2**31 - 1  # of sizes: the largest constant that is looked at
MAX_KNOWN_BYTES = 1 << 12  # of a weight that may say a shape; the values of larger ones are not looked at

# Arithmetic, layout, convolutions and what is made of them. Control flow, sequences, text, random numbers, recurrence
# and outputs whose size depends on values are left out: no model of gfl_edge has them.
_OPERATORS = """
    Abs Add And ArgMax ArgMin AveragePool BatchNormalization Cast CastLike Ceil Celu Clip Concat Constant
    ConstantOfShape Conv ConvInteger ConvTranspose CumSum DeformConv DepthToSpace DequantizeLinear Div
    DynamicQuantizeLinear Elu Equal Erf Exp Expand Flatten Floor Gather GatherElements Gelu Gemm GlobalAveragePool
    GlobalMaxPool Greater GreaterOrEqual GridSample GroupNormalization HardSigmoid HardSwish Identity
    InstanceNormalization IsInf IsNaN LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax LpNormalization
    MatMul MatMulInteger Max MaxPool Mean Min Mish Mul Neg Not Or PRelu Pad Pow QLinearConv QLinearMatMul
    QuantizeLinear Range Reciprocal ReduceL1 ReduceL2 ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd
    ReduceSum ReduceSumSquare Relu Reshape Resize Round Selu Shape Sigmoid Sign Size Slice Softmax Softplus Softsign
    SpaceToDepth Split Sqrt Squeeze Sub Sum Swish Tanh ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Upsample
    Where Xor
"""
OPERATORS = frozenset(_OPERATORS.split())
# The largest that is computed from sizes, by type: beyond, it overflows, and may be 0
_LARGEST = {"INT64": 2**62, "INT32": 2**31 - 1}
# What keeps the sizes that Shape gives what they are, and what computes with them; Div cuts off, as ONNX does
_OF_SIZES = ("Cast", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Unsqueeze")
_ARITHMETIC = {
    "Add": lambda a, b: a + b,
    "Sub": lambda a, b: a - b,
    "Mul": lambda a, b: a * b,
    "Div": lambda a, b: abs(a) // b * (1 if a >= 0 else -1),
}
# By these a library divides
_STEPS = ("blocksize", "dilations", "group", "kernel_shape", "num_groups", "strides")
_FLOATS = ("FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE")


class LimitError(ValueError):
    """A model beyond the limits; its message goes on after "the model "."""


def check_nodes(model: Any) -> None:
    """Refuse operators that no model of gfl_edge has, graphs in graphs, and weights in other files.

    This comes before ``onnx.checker``, which takes for ever where functions call functions.

    Args:
        model: ``onnx.ModelProto`` as it was read.

    Raises:
        LimitError: it has, or more nodes than the limit.
    """
    functions = {(function.domain, function.name): len(function.node) for function in model.functions}
    inner = [node for function in model.functions for node in function.node]
    nodes = [*model.graph.node, *inner]
    for node in nodes:
        if (node.domain, node.op_type) not in functions and not _is_known(node):
            named = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
            raise LimitError(f"has the operator {named[:80]!r}, which no model of gfl_edge has")
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            raise LimitError(f"has a graph within the node {node.op_type!r}, which no model of gfl_edge has")
        if node.op_type == "Split" and any(a.name == "num_outputs" and a.i != len(node.output) for a in node.attribute):
            raise LimitError(f"has a Split into another number than its {len(node.output)} outputs")  # onnx 1.23 aborts
        if node.op_type != "Constant" and any(attribute.ref_attr_name for attribute in node.attribute):
            raise LimitError(f"has a {node.op_type} by an attribute of its function, which no model of gfl_edge has")
        for attribute in node.attribute:
            steps = (*attribute.ints, *((attribute.i,) if attribute.HasField("i") else ()))
            if attribute.name in _STEPS and any(step < 1 for step in steps):
                raise LimitError(f"has the {attribute.name} 0 or less in a {node.op_type}")
    if any((node.domain, node.op_type) in functions for node in inner):
        raise LimitError("has functions that call functions, which no model of gfl_edge has")
    count = len(nodes) + sum(functions.get((node.domain, node.op_type), 0) for node in model.graph.node)
    if count > MAX_NODES:
        raise LimitError(f"has {count} nodes, the limit is {MAX_NODES}")
    inside = [attribute.t for node in nodes for attribute in node.attribute if attribute.HasField("t")]
    if any(tensor.data_location or tensor.external_data for tensor in (*model.graph.initializer, *inside)):
        raise LimitError("keeps weights in another file. Put them into it: onnx.save(onnx.load(PATH), PATH)")


def check_text(message: Any) -> None:
    """Refuse names and other text that are not UTF-8, of which Protobuf hands out bytes, and takes none.

    Args:
        message: ``onnx.ModelProto`` as it was read, or a part of one.

    Raises:
        LimitError: one is not.
    """
    for field, value in message.ListFields():
        if field.type not in (field.TYPE_STRING, field.TYPE_MESSAGE):
            continue
        for item in [value] if isinstance(value, str | bytes) or hasattr(value, "ListFields") else value:
            if isinstance(item, bytes):
                raise LimitError(f"has a {field.name} that is not UTF-8, so the file is damaged: {item[:80]!r}")
            if not isinstance(item, str):
                check_text(item)


def check_limits(model: Any) -> Any:
    """Refuse what is beyond the limits of size, and what processors cannot compute.

    Args:
        model: ``onnx.ModelProto`` that ``onnx.checker`` let pass; it is not changed.

    Returns:
        The graph with the types and shapes of its tensors, and its functions in place, as ``onnx.GraphProto``; without
        large weights.

    Raises:
        LimitError: it is.
    """
    _check_opsets(model)
    graph = _inferred(model)
    _check_divisions(graph)
    _check_sizes(graph)
    return graph


def _check_opsets(model: Any) -> None:
    onnx = optional.load("onnx")
    newest = optional.load("onnx.defs").onnx_opset_version()
    for entry in [entry for holder in (model, *model.functions) for entry in holder.opset_import]:
        if entry.domain in ("", "ai.onnx") and not MIN_OPSET <= entry.version <= newest:
            raise LimitError(
                f"is of opset {entry.version}, onnx {onnx.__version__} knows {MIN_OPSET} to {newest}. Export it "
                "again, or update with: pip install --upgrade onnx"
            )


def _is_known(node: Any) -> bool:
    if node.domain in ("", "ai.onnx"):
        return node.op_type in OPERATORS
    return bool(
        node.domain == DOMAIN and node.op_type == NMS_OP
    )  # of TensorRT's plugin; as a function it is in the file


def _inferred(model: Any) -> Any:
    """The graph with the types and shapes of its tensors; large weights become inputs, which keeps this short."""
    light = type(model)(ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions)
    light.graph.name = model.graph.name
    light.graph.node.extend(model.graph.node)
    light.graph.input.extend(model.graph.input)
    make = optional.load("onnx.helper").make_tensor_value_info
    given = {value.name for value in model.graph.input}
    for tensor in model.graph.initializer:
        if tensor.ByteSize() <= MAX_KNOWN_BYTES:
            light.graph.initializer.add().CopyFrom(tensor)
        elif tensor.name not in given:
            light.graph.input.append(make(tensor.name, tensor.data_type, tensor.dims))
    for value in model.graph.output:  # as computed, not as declared
        light.graph.output.add().name = value.name
    try:
        if light.functions:
            light = optional.load("onnx.inliner").inline_local_functions(light)
        return optional.load("onnx.shape_inference").infer_shapes(light, data_prop=True).graph
    except Exception as error:  # of types that onnx does not list
        raise LimitError(f"has shapes that do not fit together ({str(error).strip().partition(chr(10))[0]})") from error


def _check_divisions(graph: Any) -> None:
    """Of integers by what may be 0 or -1, of which processors end the process."""
    types = {value.name: _type_name(value.type.tensor_type.elem_type) for value in _values(graph)}
    types |= {tensor.name: _type_name(tensor.data_type) for tensor in graph.initializer}
    ranges = _ranges(graph, types)
    for node in graph.node:
        if node.op_type != "Div" or types.get(node.output[0]) in _FLOATS or types.get(node.input[0]) in _FLOATS:
            continue
        if ranges.get(node.input[1], (0, 0))[0] < 1:
            raise LimitError(f"divides integers by {node.input[1][:80]!r}, which may be 0 or less")


def _ranges(graph: Any, types: dict[str, str]) -> dict[str, tuple[int, int]]:
    """Least and largest value of sizes, of small constants, and of what is computed from them without overflow."""
    to_array = optional.load("onnx.numpy_helper").to_array
    constants = ((tensor.name, _range_of_constant(to_array(tensor))) for tensor in graph.initializer)
    found = {name: values for name, values in constants if values is not None}
    for node in graph.node:
        values = _range_of(node, [found.get(name) for name in node.input], to_array)
        if values is not None:
            fitting = [name for name in node.output if max(map(abs, values)) <= _LARGEST.get(types.get(name, ""), -1)]
            found.update(dict.fromkeys(fitting, values))
    return found


def _range_of(node: Any, read: list[tuple[int, int] | None], to_array: Any) -> tuple[int, int] | None:
    if node.op_type in ("Shape", "Size"):
        return 1, MAX_TENSOR_BYTES
    if node.op_type == "Constant":
        tensors = [attribute.t for attribute in node.attribute if attribute.HasField("t")]
        whole = [attribute.i for attribute in node.attribute if attribute.name == "value_int"]
        return _range_of_constant(to_array(tensors[0])) if tensors else (whole[0], whole[0]) if whole else None
    known = [values for values in read if values is not None]
    if not known or read[0] is None:
        return None
    if node.op_type in _OF_SIZES:
        return known[0]
    if len(known) != len(read):
        return None
    if node.op_type == "Concat":
        return min(low for low, _ in known), max(high for _, high in known)
    if node.op_type not in _ARITHMETIC or len(known) != 2 or (node.op_type == "Div" and known[1][0] < 1):
        return None
    corners = [_ARITHMETIC[node.op_type](a, b) for a in known[0] for b in known[1]]
    return min(corners), max(corners)


def _range_of_constant(values: Any) -> tuple[int, int] | None:
    if values.dtype.kind not in "iu" or not values.size:
        return None
    low, high = int(values.min()), int(values.max())
    return (low, high) if max(-low, high) <= MAX_FACTOR else None


def _check_sizes(graph: Any) -> None:
    sizes = optional.load("onnx.helper")
    for value in _values(graph):
        kind = value.type.tensor_type
        count = math.prod(max(dim.dim_value, 1) for dim in kind.shape.dim)
        width = 8 if kind.elem_type == 0 else sizes.tensor_dtype_to_np_dtype(kind.elem_type).itemsize
        if count * width > MAX_TENSOR_BYTES:
            raise LimitError(
                f"takes {count * width / 1e6:.0f} MB for the tensor {value.name[:80]!r} of one image, the limit is "
                f"{MAX_TENSOR_BYTES / 1e6:.0f}"
            )


def _values(graph: Any) -> Iterator[Any]:
    groups: tuple[Iterable[Any], ...] = (graph.value_info, graph.input, graph.output)
    for group in groups:
        yield from group


def _type_name(number: int) -> str:
    proto = optional.load("onnx").TensorProto
    return str(proto.DataType.Name(number)) if number in proto.DataType.values() else ""
