"""Grouped convolutions in wider groups, where TensorRT-RTX would otherwise pad each group with zeros.

For a grouped convolution whose groups are narrower than what a kernel takes, TensorRT-RTX 1.7 joins stored zeros to
every group of the input. They are as large as the padded tensor: on Turing a depthwise convolution in FP16 is computed
with eight channels for each one, and its engine holds seven zeros per element of its input. Groups that are joined into
one, with zeros among the weights, need no such padding, and compute the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gfl_edge import optional
from gfl_edge.ops.onnx_graph import OnnxGraph

FIRST_AMPERE_SM = 80
DEQUANTIZE = "DequantizeLinear"


@dataclass(frozen=True)
class Groups:
    """The groups of a convolution.

    Attributes:
        count: how many.
        inputs: channels of each.
        outputs: the same of what it computes.
    """

    count: int
    inputs: int
    outputs: int

    def joined(self, times: int) -> Groups:
        """As many groups in one; ``count`` is a multiple of ``times``."""
        return Groups(self.count // times, self.inputs * times, self.outputs * times)

    def cost(self, multiple: int) -> tuple[int, int]:
        """Channels in and out and weights of one position, where groups are padded to a multiple of channels."""
        inputs, outputs = (math.ceil(width / multiple) * multiple for width in (self.inputs, self.outputs))
        return self.count * (inputs + outputs), self.count * inputs * outputs


def widen_groups(model: Any, targets: Sequence[str]) -> int:
    """Join the groups of convolutions where that spares padding on every target, in place; it computes the same.

    A product with a zero among the weights adds nothing, as long as activations are finite.

    Args:
        model: ``onnx.ModelProto``; INT8 weights are dequantized by channel of the output.
        targets: "sm75", ...: what TensorRT-RTX is to build for.

    Returns:
        The number of convolutions that were changed.
    """
    graph = OnnxGraph(model)
    changed = 0
    for conv in [node for node in graph.nodes if node.op_type == "Conv"]:
        attribute = next((it for it in conv.attribute if it.name == "group"), None)
        weights = _weights(conv, graph)
        if attribute is None or attribute.i == 1 or weights is None:
            continue
        reader, name, half, int8 = weights
        values = optional.load("onnx.numpy_helper").to_array(graph.initializers[name])
        groups = Groups(attribute.i, values.shape[1], values.shape[0] // attribute.i)
        times = best_joint(groups, [padded_to(target, half, int8) for target in targets])
        if times > 1:
            _replace(model, reader, name, joined_weights(values, groups, times))
            attribute.i = groups.count // times
            changed += 1
    return changed


def padded_to(target: str, half: bool, int8: bool) -> int:
    """The multiple of channels that TensorRT-RTX pads groups to on a GPU; 1 where it takes them as they are."""
    if int(target.removeprefix("sm")) < FIRST_AMPERE_SM:
        return 8 if half else 4  # INT8 is computed in the float type there
    return 4 if int8 else 1


def best_joint(groups: Groups, multiples: Sequence[int]) -> int:
    """How many groups to join into one, so that on no GPU there is more to read or to multiply, and least on all."""
    before = [groups.cost(multiple) for multiple in multiples]

    def total(times: int) -> tuple[int, ...]:
        return tuple(map(sum, zip(*_costs(groups, times, multiples), strict=True)))

    return min(_no_worse(groups, multiples, before), key=total)


def _no_worse(groups: Groups, multiples: Sequence[int], before: Iterable[tuple[int, int]]) -> Iterator[int]:
    for times in range(1, groups.count + 1):
        if groups.count % times == 0:
            pairs = zip(_costs(groups, times, multiples), before, strict=True)
            if all(found[i] <= limit[i] for found, limit in pairs for i in range(2)):
                yield times


def _costs(groups: Groups, times: int, multiples: Sequence[int]) -> list[tuple[int, int]]:
    return [groups.joined(times).cost(multiple) for multiple in multiples]


def joined_weights(values: NDArray[Any], groups: Groups, times: int) -> NDArray[Any]:
    """The weights ``[outputs, inputs of a group, ...]`` of a convolution whose groups are joined, zeros elsewhere."""
    widened = np.zeros((values.shape[0], times * groups.inputs, *values.shape[2:]), values.dtype)
    for output, row in enumerate(values):
        first = output // groups.outputs % times * groups.inputs
        widened[output, first : first + groups.inputs] = row
    return widened


def _weights(conv: Any, graph: OnnxGraph) -> tuple[Any, str, bool, bool] | None:
    """The node that reads the stored weights, their name, whether it computes in FP16, whether they are INT8."""
    half = optional.load("onnx").TensorProto.FLOAT16
    name = conv.input[1]
    if name in graph.initializers:
        return conv, name, graph.initializers[name].data_type == half, False
    node = graph.producers.get(name)
    if node is None or node.op_type != DEQUANTIZE or len(graph.readers[name]) > 1:
        return None
    stored, scale = (graph.initializers.get(it) for it in node.input[:2])
    axis = next((it.i for it in node.attribute if it.name == "axis"), 1)
    if stored is None or scale is None or (axis != 0 and math.prod(scale.dims) != 1):
        return None
    return node, node.input[0], scale.data_type == half, True


def _replace(model: Any, reader: Any, name: str, values: NDArray[Any]) -> None:
    """Have ``reader`` take other values than the initializer of that name, which others may read."""
    for index, it in enumerate(reader.input):
        if it == name:
            reader.input[index] = f"{name} in groups of {values.shape[1]}"
            model.graph.initializer.append(optional.load("onnx.numpy_helper").from_array(values, reader.input[index]))
            break
    stale = [value for value in model.graph.value_info if value.name in reader.output]
    for value in stale:
        model.graph.value_info.remove(value)
