"""Where the elements of a tensor come from: followed back through everything that only moves them, exactly.

Exporters reshape, transpose, join and split what the last convolutions give, each in its own way. Instead of knowing
all ways, the number of every element is sent through those nodes in place of its value. What arrives says which element
of which map stands where, and whether a sigmoid was taken on the way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gfl_edge import optional
from gfl_edge.ops.onnx_graph import OnnxGraph

Codes = NDArray[np.int64]  # an element of a tensor as (source, whether a sigmoid was taken, place in the source)
_RESHAPES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Cast")
CONVOLUTIONS = ("Conv", "ConvTranspose")
MOVES = (*_RESHAPES, "Transpose", "Concat", "Split", "Slice", "Gather", "Sigmoid")
_COMPUTING = ("Add", "Sub", "Mul", "Div", "Pow", "Sqrt", "Exp", "Log", "Sum", "Mean", "MatMul", "Gemm")
_COMPARING = ("Greater", "GreaterOrEqual", "Less", "LessOrEqual")
_PLACE_BITS, _SIGMOID_BIT = 40, 1 << 40


@dataclass(frozen=True)
class Traced:
    """A tensor and where its elements come from.

    Attributes:
        name: of the tensor.
        sources: tensors, by number.
        source: number of the source of each element, of the tensor's shape.
        sigmoid: whether a sigmoid was taken of it.
        place: index of the element in its source, in row-major order.
    """

    name: str
    sources: tuple[str, ...]
    source: NDArray[np.int64]
    sigmoid: NDArray[np.bool_]
    place: NDArray[np.int64]


class Tracer:
    """Traces tensors of a graph.

    Args:
        graph: whose tensors.
        values: of every tensor at and after the last convolutions, as computed for some image, and of small constants.
    """

    def __init__(self, graph: OnnxGraph, values: Mapping[str, NDArray[Any]]) -> None:
        self._graph, self._values = graph, values
        self._constants = values.keys() & graph.initializers.keys()
        self._codes: dict[str, Codes] = {}
        self._sources: list[str] = []

    def trace(self, name: str) -> Traced:
        """Where the elements of the tensor ``name`` come from."""
        wanted = [name]
        while wanted:  # parents before children, without recursion: a hostile chain may be long
            tensor = wanted.pop()
            if tensor in self._codes:
                continue
            parents = self._parents(tensor)
            missing = [parent for parent in parents if parent not in self._codes]
            if missing:
                wanted += [tensor, *missing]
            else:
                self._codes[tensor] = self._codes_of(tensor, parents)
        codes = self._codes[name]
        place = codes & (_SIGMOID_BIT - 1)
        return Traced(name, tuple(self._sources), codes >> (_PLACE_BITS + 1), (codes & _SIGMOID_BIT) != 0, place)

    def _parents(self, tensor: str) -> tuple[str, ...]:
        """What the elements of a tensor are moved from; none if they are computed."""
        node = self._graph.producers.get(tensor)
        if node is None or node.op_type not in MOVES:
            return ()
        if node.op_type == "Gather" and node.input[1] not in self._constants:
            return ()  # what it takes may depend on the image, or is too large to be looked at
        taken = tuple(node.input) if node.op_type == "Concat" else (node.input[0],)
        floats = all(
            name in self._graph.producers and name in self._values and self._values[name].dtype.kind == "f"
            for name in (tensor, *taken)
        )
        return taken if floats else ()

    def _codes_of(self, tensor: str, parents: tuple[str, ...]) -> Codes:
        shape = self._values[tensor].shape
        if not parents:
            self._sources.append(tensor)
            start = (len(self._sources) - 1) << (_PLACE_BITS + 1)
            return np.arange(start, start + self._values[tensor].size).reshape(shape)
        node, first = self._graph.producers[tensor], self._codes[parents[0]]
        if node.op_type in _RESHAPES:
            return first.reshape(shape)
        if node.op_type == "Transpose":
            return first.transpose(_attribute(node, "perm", None))
        if node.op_type == "Sigmoid":
            return first | _SIGMOID_BIT
        if node.op_type == "Concat":
            return np.concatenate([self._codes[name] for name in parents], axis=_attribute(node, "axis", 0))
        if node.op_type == "Split":
            axis, index = _attribute(node, "axis", 0), list(node.output).index(tensor)
            start = sum(self._values[name].shape[axis] for name in node.output[:index])
            return first.take(range(start, start + shape[axis]), axis=axis)
        if node.op_type == "Gather":
            return first.take(self._values[node.input[1]], axis=_attribute(node, "axis", 0))
        return first[self._slices(node, first.ndim)]

    def _slices(self, node: Any, rank: int) -> tuple[slice, ...]:
        """Of a Slice, whose limits are constants: they are among the values."""
        starts, ends, *rest = (self._values[name].tolist() for name in node.input[1:])
        axes = rest[0] if rest else range(len(starts))
        steps = rest[1] if len(rest) > 1 else [1] * len(starts)
        slices = [slice(None)] * rank
        for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
            slices[axis] = slice(start, end, step) if step > 0 else slice(start, None if end < -(2**31) else end, step)
        return tuple(slices)


def _attribute(node: Any, name: str, default: Any) -> Any:
    found = [attribute for attribute in node.attribute if attribute.name == name]
    return optional.load("onnx.helper").get_attribute_value(found[0]) if found else default


def tail(graph: OnnxGraph, outputs: Iterable[str]) -> tuple[list[Any], list[str]]:
    """What comes after the last convolutions.

    Args:
        graph: of the model.
        outputs: that count.

    Returns:
        The nodes after which no convolution comes, other than convolutions, in topological order; and every tensor that
        they read or give, without weights.
    """
    before = before_convolutions(graph.nodes)
    nodes = [n for n in graph.nodes if n.op_type not in CONVOLUTIONS and before.isdisjoint(n.output)]
    tensors = [name for node in nodes for name in (*node.input, *node.output) if name in graph.producers]
    return nodes, list(dict.fromkeys([*tensors, *outputs]))


def changed_after(graph: OnnxGraph, name: str) -> bool:
    """Whether anything is computed of the values of a tensor, other than which of them are large, and kept."""
    wanted, seen = [name], set()
    while wanted:
        tensor = wanted.pop()
        for node in graph.readers.get(tensor, []) if tensor not in seen else ():
            masks = node.op_type == "Mul" and any(_is_mask(graph, name) for name in node.input)
            if node.op_type in _COMPUTING and not masks:
                return True
            if masks or node.op_type in (*MOVES, "GatherND", "Expand", "ReduceMax"):
                wanted.extend(node.output)
        seen.add(tensor)
    return False


def _is_mask(graph: OnnxGraph, name: str) -> bool:
    """Whether a tensor is the result of a comparison, as a number."""
    node = graph.producers.get(name)
    compared = graph.producers.get(node.input[0]) if node is not None and node.op_type == "Cast" else None
    return compared is not None and compared.op_type in _COMPARING


def before_convolutions(nodes: Iterable[Any]) -> set[str]:
    """The tensors from which a convolution is reached, of nodes in topological order."""
    before: set[str] = set()
    for node in reversed(list(nodes)):
        if node.op_type in CONVOLUTIONS or not before.isdisjoint(node.output):
            before.update(node.input)
    return before
