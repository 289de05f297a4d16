"""What is said to help INT8 where channels are dead or uneven, each done to a float32 graph, in place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from unittest import mock

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper

from calib import equalize
from calib.equalize import Link
from calib.qdq import input_channels
from gfl_edge.ops.onnx_graph import OnnxGraph, open_session
from gfl_edge.spec import INPUT_NAME

DEAD = 1e-3  # magnitude of a channel that is, relative to the widest of its tensor
CLIP = "Clip"  # ReLU6

Floats = NDArray[np.float32]
Images = Sequence[NDArray[np.uint8]]


@dataclass(frozen=True)
class Ends:
    """Least and largest value of each channel of a tensor, ``[C]``."""

    least: Floats
    most: Floats

    @property
    def magnitudes(self) -> Floats:
        """The larger of both."""
        return np.asarray(np.maximum(-self.least, self.most), np.float32)

    @property
    def middle(self) -> Floats:
        """Halfway between both."""
        return np.asarray((self.least + self.most) / 2, np.float32)

    @property
    def dead(self) -> NDArray[np.bool_]:
        """The channels where next to nothing is, ever."""
        return np.asarray(self.magnitudes < DEAD * max(float(self.magnitudes.max()), 1e-12), np.bool_)


def find_links(model: ModelProto) -> list[Link]:
    """The tensors between convolutions, through ReLU6 as well, which :mod:`calib.equalize` does not scale."""
    with mock.patch.object(equalize, "HOMOGENEOUS", (*equalize.HOMOGENEOUS, CLIP)):
        return equalize.find_links(model)


def ends_of(model: ModelProto, links: Sequence[Link], images: Images) -> dict[str, Ends]:
    """Of the channels of the links' tensors over images."""
    names = [link.tensor for link in links]
    session = open_session(model, names)
    found: dict[str, Ends] = {}
    for image in images:
        for name, values in zip(names, session.run(names, {INPUT_NAME: image}), strict=True):
            new = Ends(values.min(axis=(0, 2, 3)), values.max(axis=(0, 2, 3)))
            old = found.get(name, new)
            found[name] = Ends(np.minimum(old.least, new.least), np.maximum(old.most, new.most))
    return found


class Weights:
    """The weights and biases of a graph, to be read and written by name."""

    def __init__(self, model: ModelProto) -> None:
        self.graph = OnnxGraph(model)

    def __getitem__(self, name: str) -> Floats:
        return numpy_helper.to_array(self.graph.initializers[name]).astype(np.float32)

    def __setitem__(self, name: str, values: Floats) -> None:
        self.graph.initializers[name].CopyFrom(numpy_helper.from_array(values.astype(np.float32), name))


def prune(model: ModelProto, images: Images) -> int:
    """Set dead channels to 0, and what reads them; returns how many they are."""
    links, weights, count = find_links(model), Weights(model), 0
    ends = ends_of(model, links, images)
    for link in links:
        dead = ends[link.tensor].dead
        count += int(dead.sum())
        for name in link.producer.input[1:]:
            values = weights[name]
            values[dead] = 0
            weights[name] = values
        for node in link.readers:
            values = weights[node.input[1]]
            values[dead[input_channels(node, values)]] = 0
            weights[node.input[1]] = values
    return count


def absorb(model: ModelProto, images: Images) -> int:
    """Move into the next bias what every value of a channel has in common; returns the number of such channels.

    As Nagel et al. (ICCV 2019, section 4.1.3), with the ends as observed: of what a ReLU gives its least value, of what
    no activation follows the middle. Only before convolutions of 1x1, since others pad with zeros.
    """
    links, weights, count = find_links(model), Weights(model), 0
    ends = ends_of(model, links, images)
    for link in links:
        source = weights.graph.producers[link.tensor].op_type
        nodes = (link.producer, *link.readers)
        small = all(weights[node.input[1]].shape[2:] == (1, 1) for node in link.readers)
        if source == CLIP or not small or any(len(node.input) < 3 for node in nodes):
            continue
        found = ends[link.tensor]
        common = found.middle if source == "Conv" else np.maximum(found.least, np.float32(0))
        count += int(np.count_nonzero(common))
        weights[link.producer.input[2]] = weights[link.producer.input[2]] - common
        for node in link.readers:
            values = weights[node.input[1]]
            moved = (values[:, :, 0, 0] * common[input_channels(node, values)]).sum(axis=1)
            weights[node.input[2]] = weights[node.input[2]] + moved
    return count


def scale_through_relu6(model: ModelProto, images: Images, only_depthwise: bool) -> int:
    """Equalize channels through ReLU6; returns the number of tensors.

    A channel whose largest value is scaled up to ReLU6's bound at most computes what it did on these images.

    Args:
        model: float32.
        images: from which the ranges are.
        only_depthwise: only where the scales go into depthwise weights, so that every channel has the same range.
    """
    weights = Weights(model)
    chosen = [link for link in find_links(model) if not only_depthwise or all(_depthwise(weights, link))]
    ranges = {name: ends.magnitudes for name, ends in ends_of(model, chosen, images).items()}
    factors = equalize._factors

    def within_bound(link: Link, found: Floats, readers: list[Floats]) -> Floats:
        bound = max(float(found.max()), 1e-12)
        return np.asarray(np.maximum(factors(link, found, readers), found / bound), np.float32)

    with mock.patch.object(equalize, "_factors", within_bound):
        equalize.equalize(model, chosen, {name: values.tolist() for name, values in ranges.items()})
    return len(chosen)


def _depthwise(weights: Weights, link: Link) -> Iterator[bool]:
    return (weights[node.input[1]].shape[1] == 1 for node in link.readers)
