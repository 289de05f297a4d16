"""What a graph does to its input before the first convolution: a normalization that is in the file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gfl_edge import optional
from gfl_edge.adopt.foreign import Foreign
from gfl_edge.ops.onnx_graph import OnnxGraph

_PASSING = ("Cast", "Identity", "Transpose")
_ARITHMETIC = ("Add", "Sub", "Mul", "Div")
MAX_OF_UNIT_IMAGES = 2.0  # a mean or deviation above it is one of gray levels, 0 to 255


@dataclass(frozen=True)
class InnerNormalization:
    """What is in the graph: ``(x - mean) / std``, by channel as the network takes them, or the same for all.

    Attributes:
        mean, std: three numbers each.
        of_gray_levels: whether x are gray levels, 0 to 255; else 0 to 1.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    of_gray_levels: bool

    @property
    def order(self) -> str | None:
        """Of the channels, where ImageNet's mean shows it: blue is the darkest there, and red the brightest."""
        blue_first, red_first = sorted(self.mean), sorted(self.mean, reverse=True)
        if len(set(self.mean)) < 3:
            return None
        return {tuple(blue_first): "bgr", tuple(red_first): "rgb"}.get(self.mean)


def inner_normalization(foreign: Foreign) -> InnerNormalization | None:
    """The normalization in the graph; None where the first convolution takes the input as it is.

    What takes whole numbers has one, whatever it is.
    """
    if foreign.dtype == "UINT8":
        return InnerNormalization((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), of_gray_levels=True)
    graph = OnnxGraph(foreign.model)
    to_array = optional.load("onnx.numpy_helper").to_array
    factor, summand = np.ones(3), np.zeros(3)
    name, found = foreign.image, False
    while len(readers := graph.readers.get(name, [])) == 1:
        node = readers[0]
        if node.op_type in _ARITHMETIC and len(node.input) == 2:
            other = node.input[1] if node.input[0] == name else node.input[0]
            constant = graph.initializers.get(other)
            values = None if constant is None else _by_channel(to_array(constant))
            if values is None or (node.op_type in ("Sub", "Div") and node.input[0] != name):
                break
            factor, summand = _applied(node.op_type, factor, summand, values)
            found = True
        elif node.op_type not in _PASSING:
            break
        name = node.output[0]
    if not found or not factor.all():
        return None
    mean, std = -summand / factor, 1 / factor
    of_gray_levels = bool(max(abs(mean).max(), abs(std).max()) > MAX_OF_UNIT_IMAGES)
    return InnerNormalization(tuple(map(float, mean)), tuple(map(float, std)), of_gray_levels)


def _by_channel(values: NDArray[Any]) -> NDArray[np.float64] | None:
    flat = values.astype(np.float64).ravel()
    return np.broadcast_to(flat, 3) if flat.size in (1, 3) else None


def _applied(kind: str, factor: Any, summand: Any, values: Any) -> tuple[Any, Any]:
    if kind in ("Add", "Sub"):
        return factor, summand + (values if kind == "Add" else -values)
    scale = values if kind == "Mul" else 1 / np.where(values == 0, np.inf, values)
    return factor * scale, summand * scale
