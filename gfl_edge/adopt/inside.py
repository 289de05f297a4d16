"""What a graph does to its input before the first layer: a normalization, or channels that change places.

Exporters write it in many ways: arithmetic on all channels or on each, a Gather, a Split and a Concat. Instead of
knowing all, the graph is asked: an image goes in, and each channel that comes out has to be one that went in, times a
number, plus another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gfl_edge.adopt.dry_run import noise, runner
from gfl_edge.adopt.families import ChannelOrder
from gfl_edge.adopt.foreign import Foreign, ancestors
from gfl_edge.errors import InputError
from gfl_edge.ops.onnx_graph import OnnxGraph

_ARITHMETIC = ("Add", "Sub", "Mul", "Div")
_MOVING = ("Cast", "Identity", "Transpose", "Gather", "Slice", "Split", "Concat", "Reshape", "Squeeze", "Unsqueeze")
_LAYERS = ("Conv", "Pad", "MaxPool", "AveragePool", "SpaceToDepth")  # with which a network begins
_OF_SIZES = ("Shape", "Size")
MAX_OF_UNIT_IMAGES = 2.0  # a mean or deviation above it is one of gray levels, 0 to 255
IMAGENET_MEAN_RGB = (0.485, 0.456, 0.406)  # of images from 0 to 1
SAMPLED, TOLERANCE = 4096, 1e-2  # pixels that are looked at; FP16 rounds gray levels by up to 1/16
EXPLICIT = "--mean A B C --std A B C --channel-order bgr or rgb, as of its input"


@dataclass(frozen=True)
class InnerNormalization:
    """What is in the graph: ``(x - mean) / std``, by channel in the order in which the file takes them.

    Attributes:
        mean, std: three numbers each; 0 and 1 where only the order changes.
        of_gray_levels: whether x are gray levels, 0 to 255; else 0 to 1.
        normalizes: whether anything but the order changes, or the input is whole numbers.
        swaps: whether the first layer takes the channels in the other order than the file does.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    of_gray_levels: bool
    normalizes: bool = True
    swaps: bool = False

    @property
    def order(self) -> ChannelOrder | None:
        """Of the channels that the file takes, where ImageNet's mean shows it."""
        if not self.normalizes:
            return None
        mean = np.divide(self.mean, 255 if self.of_gray_levels else 1)
        orders: dict[ChannelOrder, tuple[float, ...]] = {"rgb": IMAGENET_MEAN_RGB, "bgr": IMAGENET_MEAN_RGB[::-1]}
        return next((order for order, known in orders.items() if np.allclose(mean, known, rtol=0.02)), None)


def inner_normalization(foreign: Foreign, told: bool = False) -> InnerNormalization | None:
    """What the graph does to its input; None where the first layer takes it as it is.

    What takes whole numbers has a normalization, whatever it is.

    Args:
        foreign: the model.
        told: whether mean, deviation and order were given; what is not understood then counts as a part of the network.

    Raises:
        InputError: it does what is no normalization by channel, and nothing was told.
    """
    graph = OnnxGraph(foreign.model)
    entering, kinds = _entering(graph, foreign.image)
    whole = foreign.dtype == "UINT8"
    computed = {node.op_type for node in ancestors(graph, sorted(entering))} & set(_ARITHMETIC)
    strange = sorted((kinds - set(_LAYERS)) | (set() if len(entering) == 1 else computed))
    if not strange and not computed and entering == {foreign.image}:
        return None
    found = _as_arithmetic(foreign, next(iter(entering))) if len(entering) == 1 and not strange else None
    if found is not None:
        return found if found.normalizes or found.swaps or whole else None
    if told or not (strange or computed or whole):  # the network's own rearrangement of pixels
        return None
    raise InputError(
        f"{foreign.origin} does to its image, before its first layer, what is no mean and deviation by channel "
        f"({', '.join(strange or sorted(computed)) or 'with whole numbers'}). Say what its input is: {EXPLICIT}; or "
        "export it without that"
    )


def _entering(graph: OnnxGraph, image: str) -> tuple[set[str], set[str]]:
    """The tensors that the first layers take of the image, and the kinds of these layers."""
    moved, entering, kinds = {image}, set(), set()
    for node in graph.nodes:
        taken = moved.intersection(node.input)
        if not taken or node.op_type in _OF_SIZES:
            continue
        if node.op_type in _MOVING or node.op_type in _ARITHMETIC:
            moved.update(node.output)
        else:
            entering |= taken
            kinds.add(str(node.op_type))
    return entering, kinds


def _as_arithmetic(foreign: Foreign, name: str) -> InnerNormalization | None:
    """What becomes of an image of noise, where each channel is a multiple of one that went in, plus a number."""
    height, width = foreign.input_hw
    shape = (1, 3, height, width) if foreign.layout == "nchw" else (1, height, width, 3)
    image = noise(shape)
    dtype = {"FLOAT": np.float32, "FLOAT16": np.float16, "UINT8": np.uint8}[foreign.dtype]
    after = runner(foreign.model, [name], foreign.origin)({foreign.image: image.astype(dtype)})[name]
    if after.shape != (1, 3, height, width):
        return None
    before = (image[0] if foreign.layout == "nchw" else image[0].transpose(2, 0, 1)).reshape(3, -1)
    fitted = _fit(before[:, :SAMPLED].astype(np.float64), after.reshape(3, -1)[:, :SAMPLED].astype(np.float64))
    if fitted is None:
        return None
    factor, summand, swaps = fitted
    scaled = not np.allclose(factor, 1, rtol=1e-3) or bool(np.abs(summand).max() > TOLERANCE)
    mean, std = (-summand / factor, 1 / factor) if scaled else (np.zeros(3), np.ones(3))
    normalizes = scaled or foreign.dtype == "UINT8"
    of_gray_levels = not scaled or bool(max(np.abs(mean).max(), np.abs(std).max()) > MAX_OF_UNIT_IMAGES)
    return InnerNormalization(_rounded(mean), _rounded(std), of_gray_levels, normalizes, swaps)


def _fit(before: NDArray[Any], after: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], bool] | None:
    """Factor and summand of each channel that went in, and whether they came out in reverse; None: it is neither.

    Args:
        before, after: ``[3, P]``.
    """
    terms = np.column_stack((before.T, np.ones(before.shape[1])))
    found = np.linalg.lstsq(terms, after.T, rcond=None)[0]  # row: of what went in, column: of what came out
    off = np.abs(terms @ found - after.T).max(initial=0)
    factors, summands = found[:3], found[3]
    for swaps, order in ((False, [0, 1, 2]), (True, [2, 1, 0])):
        own = factors[order, [0, 1, 2]]
        others = np.abs(factors).sum(axis=0) - np.abs(own)
        if np.abs(own).min() > 0 and (others <= TOLERANCE * np.abs(own)).all() and off <= TOLERANCE * np.ptp(after):
            return own[order], summands[order], swaps
    return None


def _rounded(values: NDArray[Any]) -> tuple[float, ...]:
    return tuple(float(f"{value:.5g}") + 0.0 for value in values)
