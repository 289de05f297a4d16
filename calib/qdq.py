"""Graphs with QuantizeLinear / DequantizeLinear pairs: which layers they make INT8, and taking pairs away again.

A layer is a node with a dequantized input: a convolution with its weights, or an addition, concatenation, pooling or
resize. It is called by its weights where it has some ("body.backbone.conv1.0"), else by its node.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from calib.histogram import STEPS
from calib.processors import MAX_SUM, unsigned_steps, widest_sum
from gfl_edge.errors import CalibrationError
from gfl_edge.ops.onnx_graph import OnnxGraph, copy_model, tensor_types

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
# FP16 still holds it, if coarsely; a channel whose weights vanish would have 0 there, which TensorRT refuses
MIN_SCALE = 2.0**-20
HALF_SCALES_OPSET = 19  # the first whose QuantizeLinear takes FP16

Range = tuple[float, float]  # of a tensor: where it is clipped


@dataclass(frozen=True)
class Layer:
    """A layer that computes in INT8.

    Attributes:
        name: see the module.
        nodes: of the graph; several where a head's levels share their weights.
        kind: operator.
    """

    name: str
    nodes: tuple[str, ...]
    kind: str


class QdqGraph:
    """A float32 graph with Q/DQ pairs, as Model Optimizer places them, and what the runs of calibration change in it.

    Args:
        model: its scales are float32 initializers; weights are quantized per channel from float initializers.
        for_cpu: keep only the pairs of convolutions, make activations uint8, and the scales of weights as wide as
            :mod:`calib.processors` asks.
    """

    def __init__(self, model: ModelProto, for_cpu: bool = False) -> None:
        self.model, self._unsigned = model, for_cpu
        if for_cpu:
            keep_convolutions(model)
            widen_weight_scales(model)
        self._graph = OnnxGraph(model)
        found: dict[str, Layer] = {}
        for node in model.graph.node:
            sources = [str(pair.input[0]) for name in node.input if (pair := self._pair(name)) is not None]
            if not sources or node.op_type in (QUANTIZE, DEQUANTIZE, "Shape"):
                continue
            weights = [source.removesuffix(".weight") for source in sources if source in self._graph.initializers]
            name = weights[0] if weights else str(node.name)
            others = found[name].nodes if name in found else ()
            found[name] = Layer(name, (*others, node.name), node.op_type)
        self.layers = tuple(found.values())
        if not self.layers:
            raise CalibrationError("no layer of the graph can be quantized. Is it a detector of this project?")

    def _pair(self, name: str) -> NodeProto | None:
        """The QuantizeLinear whose dequantized tensor is ``name``, or None."""
        dequantize = self._graph.producers.get(name)
        if dequantize is None or dequantize.op_type != DEQUANTIZE:
            return None
        quantize = self._graph.producers.get(dequantize.input[0])
        return quantize if quantize is not None and quantize.op_type == QUANTIZE else None

    def activations(self) -> dict[str, tuple[str, ...]]:
        """Quantized activations: tensor -> all that have to share its scale, itself included.

        Model Optimizer gives one scale to the inputs of a concatenation, and before and after what only moves values.
        """
        scale_of = {
            node.input[0]: float(numpy_helper.to_array(self._graph.initializers[node.input[1]]).reshape(-1)[0])
            for node in self.model.graph.node
            if node.op_type == QUANTIZE and node.input[0] not in self._graph.initializers
        }
        groups: dict[float, list[str]] = {}
        for name, scale in scale_of.items():
            groups.setdefault(scale, []).append(name)
        return {name: tuple(groups[scale]) for name, scale in scale_of.items()}

    def conv_inputs(self) -> set[str]:
        """The tensors that quantized convolutions read."""
        found = set()
        for node in self.model.graph.node:
            pair = self._pair(node.input[0]) if node.op_type == "Conv" else None
            if pair is not None:
                found.add(pair.input[0])
        return found

    def quantized(
        self,
        ranges: Mapping[str, Range],
        channel_means: Mapping[str, Sequence[float]],
        float_layers: Collection[str] = (),
    ) -> ModelProto:
        """A copy with these ranges, in which ``float_layers`` stay float; see :func:`correct_biases` for the means.

        Raises:
            CalibrationError: a quantized tensor has no range or no means.
        """
        model = self.with_ranges(ranges)
        keep_float(model, {node for layer in self.layers if layer.name in float_layers for node in layer.nodes})
        correct_biases(model, channel_means)
        return model

    def with_ranges(self, ranges: Mapping[str, Range]) -> ModelProto:
        """A copy whose activations are clipped at these values; those that share a scale get the widest of theirs.

        No scale of it, of weights or activations, is below ``MIN_SCALE``. INT8 activations are symmetric.

        Raises:
            CalibrationError: a quantized tensor has no range.
        """
        shared = self.activations()
        missing = [name for name in shared if name not in ranges]
        if missing:
            raise CalibrationError(
                f"{len(missing)} tensors have no range, the first {missing[0]}. Calibrate without --cache"
            )
        model = copy_model(self.model)
        scales: dict[str, float] = {}
        for node in [node for node in model.graph.node if node.op_type == QUANTIZE and node.input[0] in shared]:
            low = min(ranges[member][0] for member in shared[node.input[0]])
            high = max(ranges[member][1] for member in shared[node.input[0]])
            scales[node.input[1]] = max(-low, high) / STEPS
            if self._unsigned:
                scales[node.input[1]], zero = unsigned_steps(low, high)
                _set_zero_point(model, node, zero)
        of_weights = {node.input[1] for node in model.graph.node if node.op_type == QUANTIZE} - scales.keys()
        for tensor in model.graph.initializer:
            if tensor.name in scales or tensor.name in of_weights:
                values = np.asarray(scales.get(tensor.name, numpy_helper.to_array(tensor)), np.float32)
                # A tensor that is 0 everywhere takes any scale but 0
                lifted = np.where(values == 0, np.float32(1), np.maximum(values, np.float32(MIN_SCALE)))
                tensor.CopyFrom(numpy_helper.from_array(lifted, tensor.name))
        return model


def _set_zero_point(model: ModelProto, quantize: NodeProto, zero: int) -> None:
    """Make what ``quantize`` gives, and what is dequantized of it, uint8 with this zero point, in place."""
    name = f"{quantize.output[0]}_zero"
    model.graph.initializer.append(numpy_helper.from_array(np.uint8(zero), name))
    for node in model.graph.node:
        if node.op_type in (QUANTIZE, DEQUANTIZE) and quantize.output[0] in (node.input[0], node.output[0]):
            node.input[2] = name


def widen_weight_scales(model: ModelProto) -> None:
    """Make the scales of quantized weights so wide that no processor saturates, in place."""
    graph = OnnxGraph(model)
    for node in graph.nodes:
        if node.op_type == "Conv" and _is_int8(node, graph):
            weights, scales = graph.producers[graph.producers[node.input[1]].input[0]].input[:2]
            needed = widest_sum(numpy_helper.to_array(graph.initializers[weights])) / MAX_SUM
            wide = np.maximum(numpy_helper.to_array(graph.initializers[scales]), needed).astype(np.float32)
            graph.initializers[scales].CopyFrom(numpy_helper.from_array(wide, scales))


def keep_convolutions(model: ModelProto) -> None:
    """Take the Q/DQ pairs off everything but convolutions, in place."""
    keep_float(model, {node.name for node in model.graph.node if node.op_type not in ("Conv", QUANTIZE, DEQUANTIZE)})


def without_pairs(model: ModelProto) -> ModelProto:
    """A copy in which nothing is quantized."""
    copy = copy_model(model)
    keep_float(copy, {node.name for node in copy.graph.node if node.op_type not in (QUANTIZE, DEQUANTIZE)})
    return copy


def keep_float(model: ModelProto, nodes: Collection[str]) -> None:
    """Take the Q/DQ pairs off the inputs of ``nodes`` (names), in place; pairs that others use stay for them."""
    producers = OnnxGraph(model).producers
    for node in model.graph.node:
        if node.name not in nodes:
            continue
        for index, name in enumerate(node.input):
            dequantize = producers.get(name)
            if dequantize is not None and dequantize.op_type == DEQUANTIZE:
                node.input[index] = producers[dequantize.input[0]].input[0]
    _drop_unused(model)


def _drop_unused(model: ModelProto) -> None:
    """Remove Q/DQ nodes that nothing reads any more, and initializers of theirs."""
    graph = model.graph
    while True:
        used = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
        unused = [n for n in graph.node if n.op_type in (QUANTIZE, DEQUANTIZE) and not used & set(n.output)]
        if not unused:
            break
        for node in unused:
            graph.node.remove(node)
    used = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)


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
        added = ((rounded - exact).sum(axis=(2, 3)) * means[channels]).sum(axis=1)
        name = f"{node.input[2]}_of_{node.name}"  # a bias may be shared, and belongs to float layers too
        bias = numpy_helper.to_array(graph.initializers[node.input[2]]) - added
        model.graph.initializer.append(numpy_helper.from_array(bias.astype(np.float32), name))
        node.input[2] = name
    _drop_unused(model)


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
    sources = {node.name: node for node in original.graph.node}
    for node in model.graph.node:
        if node.name in sources and node.op_type in ("Cast", "Constant"):
            inputs, outputs = tuple(node.input), tuple(node.output)  # which may be those of Q/DQ pairs
            node.CopyFrom(sources[node.name])
            del node.input[:], node.output[:]
            node.input.extend(inputs)
            node.output.extend(outputs)
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
