"""Graphs with QuantizeLinear / DequantizeLinear pairs, made from float ones.

A layer is a node that reads dequantized tensors: a convolution with its weights, or an addition, concatenation or
resize. It is called by its weights where it has some ("body.backbone.conv1.0"), else by what it gives.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from calib.histogram import STEPS
from calib.processors import MAX_SUM, unsigned_steps, widest_sum
from gfl_edge.errors import CalibrationError
from gfl_edge.ops.onnx_graph import OnnxGraph, copy_model, tensor_types

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
# FP16 still holds it, if coarsely; a channel whose weights vanish would have 0 there, which TensorRT refuses
MIN_SCALE = 2.0**-20
HALF_SCALES_OPSET = 19  # the first whose QuantizeLinear takes FP16

Floats = NDArray[np.float32]
Range = tuple[float, float]  # of a tensor: where it is clipped


def node_id(node: NodeProto) -> str:
    """What a node is known by: its first output. Names may be missing, or given twice."""
    return str(node.output[0])


@dataclass(frozen=True)
class Layer:
    """A layer that can compute in INT8.

    Attributes:
        name: see the module.
        nodes: of the graph, see :func:`node_id`; several where a head's levels share their weights.
        kind: operator.
    """

    name: str
    nodes: tuple[str, ...]
    kind: str


class QdqGraph:
    """A float32 graph, where it gets Q/DQ pairs, and its quantized forms.

    Args:
        model: float32; it is not changed.
        reads: node, see :func:`node_id` -> indices of the inputs that it reads dequantized: activations, or
            initializers, which are weights and get a scale per output channel.
        shared: groups of activations that have one scale.
        unsigned: make activations uint8, and the scales of weights as wide as :mod:`calib.processors` asks.

    Raises:
        CalibrationError: there is nothing to quantize.
    """

    def __init__(
        self,
        model: ModelProto,
        reads: Mapping[str, Sequence[int]],
        shared: Iterable[Collection[str]] = (),
        unsigned: bool = False,
    ) -> None:
        self.model, self._reads, self._unsigned = model, dict(reads), unsigned
        self._shared = {name: tuple(sorted(group)) for group in shared for name in group}
        graph = OnnxGraph(model)
        found: dict[str, Layer] = {}
        self._weight_scales: dict[str, Floats] = {}
        for node in [node for node in graph.nodes if node_id(node) in self._reads]:
            inputs = [str(node.input[index]) for index in self._reads[node_id(node)]]
            weights = [name for name in inputs if name in graph.initializers]
            for name in weights:
                self._weight_scales[name] = weight_scales(numpy_helper.to_array(graph.initializers[name]), unsigned)
            name = weights[0].removesuffix(".weight") if weights else node_id(node)
            others = found[name].nodes if name in found else ()
            found[name] = Layer(name, (*others, node_id(node)), node.op_type)
        self.layers = tuple(found.values())
        if not self.layers:
            raise CalibrationError("no layer of the graph can be quantized. Is it a detector of this project?")

    def activations(self) -> tuple[str, ...]:
        """The tensors that are quantized, without weights, in the order in which they are read."""
        read = (node.input[i] for node in self.model.graph.node for i in self._reads.get(node_id(node), ()))
        return tuple(dict.fromkeys(str(name) for name in read if name not in self._weight_scales))

    def conv_inputs(self) -> set[str]:
        """The tensors that quantized convolutions read."""
        nodes = self.model.graph.node
        return {str(node.input[0]) for node in nodes if node.op_type == "Conv" and node_id(node) in self._reads}

    def quantized(
        self,
        ranges: Mapping[str, Range],
        channel_means: Mapping[str, Sequence[float]],
        float_layers: Collection[str] = (),
    ) -> ModelProto:
        """A copy with Q/DQ pairs, in which ``float_layers`` stay float; see :func:`correct_biases` for the means.

        Activations that share a scale get the widest of their ranges. INT8 activations are symmetric. No scale is
        below ``MIN_SCALE``.

        Raises:
            CalibrationError: a quantized tensor has no range or no means.
        """
        missing = [name for name in self.activations() if name not in ranges]
        if missing:
            raise CalibrationError(
                f"{len(missing)} tensors have no range, the first {missing[0]}. Calibrate without --cache"
            )
        model = copy_model(self.model)
        kept = {node for layer in self.layers if layer.name in float_layers for node in layer.nodes}
        self._add_pairs(model, ranges, kept)
        correct_biases(model, channel_means)
        return model

    def _add_pairs(self, model: ModelProto, ranges: Mapping[str, Range], kept: Collection[str]) -> None:
        """Put pairs before the nodes that read dequantized tensors, except ``kept``, in place."""
        nodes: list[NodeProto] = []
        done: dict[str, str] = {}  # tensor -> what its pair gives
        for node in model.graph.node:
            for index in self._reads.get(node_id(node), ()) if node_id(node) not in kept else ():
                name = str(node.input[index])
                if name not in done:
                    tensors, pair = self._pair(name, ranges)
                    model.graph.initializer.extend(tensors)
                    nodes += pair
                    done[name] = pair[-1].output[0]
                node.input[index] = done[name]
            nodes.append(node)
        copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del model.graph.node[:]
        model.graph.node.extend(copies)

    def _pair(self, name: str, ranges: Mapping[str, Range]) -> tuple[list[TensorProto], list[NodeProto]]:
        """Scale and zero point of a tensor, and the pair of nodes that rounds it."""
        axis: dict[str, int] = {}
        scale: NDArray[Any]
        zero: NDArray[Any]
        if name in self._weight_scales:
            scale, axis = self._weight_scales[name], {"axis": 0}
            zero = np.zeros(len(scale), np.int8)
        else:
            group = [ranges[member] for member in self._shared.get(name, (name,)) if member in ranges]
            scale, zero = self._steps(min(low for low, _ in group), max(high for _, high in group))
        parameters = {f"{name}_scale": scale, f"{name}_zero_point": zero}
        tensors = [numpy_helper.from_array(np.asarray(values), key) for key, values in parameters.items()]
        middle, end = f"{name}_quantized", f"{name}_dequantized"
        return tensors, [
            helper.make_node(QUANTIZE, [name, *parameters], [middle], f"{name}_{QUANTIZE}", **axis),
            helper.make_node(DEQUANTIZE, [middle, *parameters], [end], f"{name}_{DEQUANTIZE}", **axis),
        ]

    def _steps(self, low: float, high: float) -> tuple[NDArray[Any], NDArray[Any]]:
        """Scale and zero point of activations from ``low`` to ``high``, as scalars."""
        if self._unsigned:
            scale, zero = unsigned_steps(low, high)
            return _usable(np.asarray(scale, np.float32)), np.asarray(zero, np.uint8)
        return _usable(np.asarray(max(-low, high) / STEPS, np.float32)), np.asarray(0, np.int8)


def weight_scales(weights: Floats, unsigned: bool) -> Floats:
    """Scales per output channel, ``[O, ...]`` -> ``[O]``, for what ``unsigned`` means in :class:`QdqGraph`."""
    largest = np.abs(weights).reshape(len(weights), -1).max(axis=1) / STEPS
    return _usable(np.maximum(largest, widest_sum(weights) / MAX_SUM) if unsigned else largest)


def _usable(scales: Floats) -> Floats:
    """At least ``MIN_SCALE``; of a tensor that is 0 everywhere, which takes any scale but 0, it is 1."""
    lifted = np.where(scales == 0, np.float32(1), np.maximum(scales, np.float32(MIN_SCALE)))
    return np.asarray(lifted, np.float32)


def correct_biases(model: ModelProto, channel_means: Mapping[str, Sequence[float]]) -> None:
    """Take off the biases of INT8 convolutions what rounding their weights adds on average, in place.

    That is the sum over the kernel of (rounded - exact weight) times the mean of the input channel (Nagel et al., ICCV
    2019, section 4.2, with the means as observed; borders counted like the inside).

    Raises:
        CalibrationError: an input has no means.
    """
    graph = OnnxGraph(model)
    for node in graph.nodes:
        if node.op_type != "Conv" or len(node.input) < 3 or not _is_int8(node, graph):
            continue
        activation, weight = (graph.producers[graph.producers[name].input[0]] for name in node.input[:2])
        means = np.array(channel_means.get(activation.input[0], ()), np.float32)
        exact, scales = (numpy_helper.to_array(graph.initializers[name]) for name in weight.input[:2])
        channels = input_channels(node, exact)
        if means.size <= channels.max():
            raise CalibrationError(f"no means of {activation.input[0]}. Calibrate without --cache")
        rounded = quantize_weights(exact, scales, 0) * scales.reshape(-1, 1, 1, 1)
        errors = (rounded - exact).sum(axis=(2, 3), dtype=np.float64)
        added = (errors * means[channels]).sum(axis=1)
        name = f"{node.input[2]}_of_{node_id(node)}"  # a bias may be shared, and belongs to float layers too
        bias = numpy_helper.to_array(graph.initializers[node.input[2]]) - added
        model.graph.initializer.append(numpy_helper.from_array(bias.astype(np.float32), name))
        node.input[2] = name
    _drop_unused(model)


def _drop_unused(model: ModelProto) -> None:
    """Remove initializers that nothing reads any more, in place."""
    used = {name for node in model.graph.node for name in node.input}
    for tensor in [tensor for tensor in model.graph.initializer if tensor.name not in used]:
        model.graph.initializer.remove(tensor)


def input_channels(node: NodeProto, weights: NDArray[np.float32]) -> NDArray[np.int64]:
    """The input channel that each weight ``[O, I, ...]`` of a convolution belongs to, ``[O, I]``."""
    groups = next((onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == "group"), 1)
    outputs, per_group = weights.shape[:2]
    first = np.arange(outputs) // (outputs // groups) * per_group
    return np.asarray(first[:, None] + np.arange(per_group), np.int64)


def fold_weights(model: ModelProto) -> None:
    """Store quantized weights as INT8, in place: a quarter of the bytes, and nothing left to compute."""
    tensors = OnnxGraph(model).initializers
    for node in [n for n in model.graph.node if n.op_type == QUANTIZE and n.input[0] in tensors]:
        weights, scales = (numpy_helper.to_array(tensors[name]).astype(np.float32) for name in node.input[:2])
        axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
        integers = quantize_weights(weights, scales, axis)
        model.graph.initializer.append(numpy_helper.from_array(integers, node.output[0]))
        model.graph.node.remove(node)
    _drop_unused(model)


def quantize_weights(weights: NDArray[np.float32], scales: NDArray[np.float32], axis: int) -> NDArray[np.int8]:
    """Weights in steps of their channel's scale, rounded to even and saturated, as QuantizeLinear does."""
    shape = [1] * weights.ndim
    shape[axis] = -1
    steps = np.round(weights / (scales.reshape(shape) if scales.ndim else scales))
    return np.asarray(np.clip(steps, -STEPS - 1, STEPS), np.int8)


def _is_int8(conv: NodeProto, graph: OnnxGraph) -> bool:
    """Whether a convolution's input and weights are both dequantized."""
    sources = [graph.producers.get(name) for name in conv.input[:2]]
    return all(source is not None and source.op_type == DEQUANTIZE for source in sources)


def count_layers(model: ModelProto) -> dict[str, int]:
    """How many convolutions compute in INT8, and how many there are."""
    graph = OnnxGraph(model)
    convs = [node for node in graph.nodes if node.op_type == "Conv"]
    return {"quantized": sum(_is_int8(node, graph) for node in convs), "convolutions": len(convs)}


def to_float32(model: ModelProto) -> ModelProto:
    """A copy with float32 wherever there was FP16; casts between the two stay, as casts to float32."""
    copy = copy_model(model)
    for tensor in copy.graph.initializer:
        _retype(tensor, TensorProto.FLOAT16, TensorProto.FLOAT)
    for node in copy.graph.node:
        for attribute in node.attribute:
            if attribute.name == "to" and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.FLOAT
            if attribute.HasField("t"):
                _retype(attribute.t, TensorProto.FLOAT16, TensorProto.FLOAT)
    for value in (*copy.graph.value_info, *copy.graph.output):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    return copy


def restore_half(model: ModelProto, original: ModelProto) -> None:
    """Give ``model``, made from ``to_float32(original)`` by adding Q/DQ pairs, the types of ``original``, in place."""
    half = {name for name, kind in tensor_types(original).items() if kind == TensorProto.FLOAT16}
    if not half:
        return
    scales = {node.input[1] for node in model.graph.node if node.op_type == QUANTIZE and node.input[0] in half}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv" and node.output[0] in half]
    biases = {node.input[2] for node in convolutions if len(node.input) > 2}

    # Folded weights have no QuantizeLinear that would name their scales
    producers = OnnxGraph(model).producers
    weights = [producers[node.input[1]] for node in convolutions if node.input[1] in producers]
    scales |= {node.input[1] for node in weights if node.op_type == DEQUANTIZE}

    for tensor in model.graph.initializer:
        if tensor.name in half or tensor.name in scales or tensor.name in biases:
            _retype(tensor, TensorProto.FLOAT, TensorProto.FLOAT16)
    sources = {node_id(node): node for node in original.graph.node if node.op_type in ("Cast", "Constant")}
    for node in model.graph.node:
        if node_id(node) in sources:
            inputs = tuple(node.input)  # which may be those of Q/DQ pairs
            node.CopyFrom(sources[node_id(node)])
            del node.input[:]
            node.input.extend(inputs)
    for output in model.graph.output:
        if output.name in half:
            output.type.tensor_type.elem_type = TensorProto.FLOAT16
    del model.graph.value_info[:]
    for opset in model.opset_import:
        if opset.domain == "" and opset.version < HALF_SCALES_OPSET:
            opset.version = HALF_SCALES_OPSET


def _retype(tensor: TensorProto, old: int, new: int) -> None:
    if tensor.data_type == old:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(new)
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(dtype), tensor.name))
