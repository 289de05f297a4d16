"""Channels of equal range: scaling what a convolution gives and unscaling what the next one takes.

A tensor has one INT8 range for all of its channels, so that a channel of small values gets few steps. ReLU and leaky
ReLU commute with positive factors: dividing a convolution's output channels by s and multiplying the next one's input
channels by it changes nothing in float and evens the ranges out (Nagel et al., Data-Free Quantization Through Weight
Equalization and Bias Correction, ICCV 2019, section 4.1, with the activations' ranges as observed).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, numpy_helper

from calib.qdq import input_channels
from gfl_edge.errors import CalibrationError
from gfl_edge.ops.onnx_graph import OnnxGraph, open_session
from gfl_edge.progress import track
from gfl_edge.spec import INPUT_NAME

HOMOGENEOUS = ("Relu", "LeakyRelu")  # f(s * x) = s * f(x) for s > 0
MIN_FACTOR = 1 / 64  # of a channel, relative to the widest: channels that are always 0 stay finite

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Link:
    """A tensor between convolutions that nothing else reads.

    Attributes:
        tensor: what the readers take, ``[N, C, H, W]``.
        producer: the convolution whose output it is, possibly through an activation.
        readers: the convolutions that take it.
    """

    tensor: str
    producer: NodeProto
    readers: tuple[NodeProto, ...]


def find_links(model: ModelProto) -> list[Link]:
    """The tensors of ``model`` that can be scaled."""
    graph = OnnxGraph(model)
    outputs = {output.name for output in model.graph.output}

    def own_weights(node: NodeProto) -> bool:
        return all(name in graph.initializers and len(graph.readers[name]) == 1 for name in node.input[1:])

    found = []
    for tensor, takers in graph.readers.items():
        source = graph.producers.get(tensor)
        if source is not None and source.op_type in HOMOGENEOUS and len(graph.readers[source.input[0]]) == 1:
            source = graph.producers.get(source.input[0])
        if source is None or source.op_type != "Conv" or tensor in outputs or source.output[0] in outputs:
            continue
        if source.output[0] != tensor and graph.producers[tensor].op_type not in HOMOGENEOUS:
            continue
        if all(node.op_type == "Conv" and node.input[0] == tensor for node in takers) and all(
            own_weights(node) for node in (source, *takers)
        ):
            found.append(Link(tensor, source, tuple(takers)))
    return found


def channel_ranges(
    model: ModelProto, links: Iterable[Link], inputs: Iterable[NDArray[np.uint8]], count: int, progress: bool = True
) -> dict[str, list[float]]:
    """Largest magnitude of each channel of the links' tensors over images, ``[C]`` by tensor.

    Args:
        model: float32.
        links: of the model.
        inputs: images, uint8 ``[1, H, W, 3]``.
        count: how many they are.
        progress: draw a progress line on stderr.
    """
    names = [link.tensor for link in links]
    if not names:  # of no outputs ONNX Runtime gives all
        return {}
    session = open_session(model, names)
    found: dict[str, Floats] = {}
    for image in track(inputs, "ranges of channels", count, progress):
        for name, values in zip(names, session.run(names, {INPUT_NAME: image}), strict=True):
            largest = np.abs(values).max(axis=(0, 2, 3))
            found[name] = np.maximum(found[name], largest) if name in found else largest
    return {name: values.astype(float).tolist() for name, values in found.items()}


def equalize(model: ModelProto, links: Iterable[Link], ranges: Mapping[str, Sequence[float]]) -> None:
    """Scale the channels of the links' tensors, in place; in float the model computes what it did.

    Args:
        model: float32.
        links: of the model.
        ranges: see :func:`channel_ranges`.

    Raises:
        CalibrationError: ``ranges`` are of another model.
    """
    tensors = OnnxGraph(model).initializers
    arrays: dict[str, Floats] = {}

    def weights(name: str) -> Floats:
        if name not in arrays:
            arrays[name] = numpy_helper.to_array(tensors[name]).astype(np.float32)
        return arrays[name]

    for link in links:
        found = np.array(ranges.get(link.tensor, ()), np.float32)
        if found.shape != weights(link.producer.input[1]).shape[:1]:
            raise CalibrationError(f"no ranges of the channels of {link.tensor}. Calibrate without --cache")
        factors = _factors(link, found, [weights(node.input[1]) for node in link.readers])
        for name in link.producer.input[1:]:  # weights [C, ...] and bias [C]
            values = weights(name)
            arrays[name] = values / factors.reshape(-1, *[1] * (values.ndim - 1))
        for node in link.readers:
            values = weights(node.input[1])
            arrays[node.input[1]] = values * factors[input_channels(node, values)][:, :, None, None]
    for name, values in arrays.items():
        tensors[name].CopyFrom(numpy_helper.from_array(values.astype(np.float32), name))


def _factors(link: Link, ranges: Floats, readers: list[Floats]) -> Floats:
    """What each channel is divided by, ``[C]``, 1 for the widest and a power of two for all.

    Powers of two are exact, and the same on every processor even where the ranges differ in their last bits.

    Where every channel has weights of its own, as in a depthwise convolution, these take any factor. Elsewhere a factor
    makes the weights of one channel larger than those of others, and the root evens both out.
    """
    widths = np.maximum(ranges / max(float(ranges.max()), 1e-12), MIN_FACTOR)
    if all(values.shape[1] == 1 for values in readers):
        return _powers_of_two(widths)
    largest = np.zeros_like(widths)
    for node, values in zip(link.readers, readers, strict=True):
        magnitudes = np.abs(values).max(axis=(2, 3))
        np.maximum.at(largest, input_channels(node, values), magnitudes)
    largest = np.maximum(largest / max(float(largest.max()), 1e-12), MIN_FACTOR)
    factors = np.sqrt(widths / largest)
    return _powers_of_two(factors / factors.max())


def _powers_of_two(values: Floats) -> Floats:
    """The nearest ones, by the logarithm."""
    return np.asarray(np.exp2(np.round(np.log2(values))), np.float32)
