"""What a foreign graph shows of a GFL detector: its levels, classes, bins, and whether scores are logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gfl_edge import optional
from gfl_edge.adopt.decoded import point_offset_of
from gfl_edge.adopt.dry_run import noise, runner
from gfl_edge.adopt.foreign import EXPECTED, Foreign
from gfl_edge.adopt.maps import Piece, Role, grid_sizes, joins_levels, pieces_of
from gfl_edge.adopt.opsets import opset_of
from gfl_edge.adopt.roles import MAX_LEVELS, MIN_BINS, Given, Pair, fits, pairs, sizes_of
from gfl_edge.adopt.trace import Traced, Tracer, changed_after, tail
from gfl_edge.errors import InputError, ModelFileError
from gfl_edge.ops.onnx_graph import OnnxGraph
from gfl_edge.ops.onnx_limits import MAX_KNOWN_BYTES

SOFTMAX_OF_ONE_AXIS = 13  # opset


@dataclass(frozen=True)
class Level:
    """One level of the pyramid.

    Attributes:
        stride: input pixels per cell.
        scores: map of the class scores.
        distributions: map of the edges' distributions.
    """

    stride: int
    scores: Piece
    distributions: Piece


@dataclass(frozen=True)
class Head:
    """What a detector gives.

    Attributes:
        levels: by ascending stride.
        num_classes: C.
        reg_max: each edge's distribution has reg_max + 1 bins.
        logits: whether the maps of scores are logits; else they are probabilities.
        seeds: tensors of the file from whose elements the levels were found.
        notes: what was found by what, for people.
        point_offset: cell i lies at ``(i + point_offset) * stride``, where the file decodes boxes; None: it does not.
    """

    levels: tuple[Level, ...]
    num_classes: int
    reg_max: int
    logits: bool
    seeds: tuple[Traced, ...]
    notes: tuple[str, ...]
    point_offset: float | None = None

    @property
    def strides(self) -> tuple[int, ...]:
        """Of the levels."""
        return tuple(level.stride for level in self.levels)


def find_head(foreign: Foreign, given: Given) -> Head:
    """Find the maps of a detector.

    Args:
        foreign: the model.
        given: what is known beside it.

    Raises:
        ModelFileError: it has none of a GFL detector, or cannot be run.
        InputError: the graph leaves open what is what, and so does ``given``, or contradicts it.
    """
    search = _Search(foreign)
    found, notes = pairs(search.ends(), search.softmaxed(), search.sigmoids(), given, foreign)
    _check_all_levels(found, search.unplaced, foreign)
    levels = _with_strides(found, grid_sizes(foreign.input_hw), foreign)
    return _checked(levels, given, search, tuple(notes), foreign)


class _Search:
    """The pieces of maps in what comes after the last convolutions."""

    def __init__(self, foreign: Foreign) -> None:
        self._foreign, self._graph = foreign, OnnxGraph(foreign.model)
        self._outputs = [value.name for value in foreign.model.graph.output]
        self._nodes, tensors = tail(self._graph, self._outputs)
        self.values = {**_small_constants(self._graph), **_values(foreign, tensors)}
        self._tracer, self._sizes = Tracer(self._graph, self.values), grid_sizes(foreign.input_hw)
        self.seeds: dict[str, Traced] = {}
        self.unplaced: dict[str, tuple[int, ...]] = {}  # what is no map of a level, and its shape
        softmaxes = [node for node in self._nodes if node.op_type == "Softmax" and node.input[0] in self.values]
        self._softmaxes = {node.output[0] for node in softmaxes}
        self._ends = [piece for name in self._outputs for piece in self._pieces(name)]
        self._softmaxed = [
            piece
            for node in softmaxes
            for piece in self._pieces(node.input[0], "distributions", self._bins(node))
            if piece.width == 4 * piece.bins
        ]
        sigmoids = [node for node in self._nodes if node.op_type == "Sigmoid"]
        kept = [node for node in sigmoids if not changed_after(self._graph, node.output[0])]
        self._sigmoids = [piece for node in kept for piece in self._pieces(node.input[0], "scores")]
        groups = (self._ends, self._softmaxed, self._sigmoids)
        self._has_maps = any(piece.is_map for group in groups for piece in group)

    def ends(self) -> list[Piece]:
        """Of the outputs, without what a softmax was taken of.

        Raises:
            ModelFileError: there are none, or there are what no detector of these families has.
        """
        anchors = [name for name in self._outputs if name in self.values and self.values[name].ndim > 4]
        if anchors:
            shape = list(self.values[anchors[0]].shape)
            raise ModelFileError(
                f"{self._foreign.origin} gives {anchors[0][:40]} {shape}, as detectors of several anchors per cell do. "
                f"{EXPECTED}"
            )
        ends = self._of_maps(self._ends)
        if not ends and not self._softmaxed:
            raise _none_found(self._foreign, self._outputs, self.values)
        softmaxed = {name for name in self._softmaxes if self._is_output(name)}
        if softmaxed and not any(piece.role == "scores" for piece in ends):
            raise ModelFileError(
                f"{self._foreign.origin} gives a softmax ({sorted(softmaxed)[0][:40]}) and no sigmoid, as detectors do "
                f"that tell classes from a background. {EXPECTED}"
            )
        return [piece for piece in ends if piece.tensor not in self._softmaxes]

    def softmaxed(self) -> list[Piece]:
        """That a softmax is taken of, over bins of edges."""
        return self._of_maps(self._softmaxed)

    def sigmoids(self) -> list[Piece]:
        """That a sigmoid is taken of, and nothing else."""
        return self._of_maps(self._sigmoids)

    def _of_maps(self, group: list[Piece]) -> list[Piece]:
        """Rows of anything else may be as many as a level has cells: 100 detections, and 10 x 10 cells."""
        return [piece for piece in group if piece.is_map or not self._has_maps]

    def _is_output(self, name: str) -> bool:
        """Whether a tensor arrives among the outputs as it is."""
        traced = (self._tracer.trace(output) for output in self._outputs if output in self.values)
        return any(name in t.sources and (t.source == t.sources.index(name)).any() for t in traced)

    def _bins(self, node: Any) -> int:
        """Of a softmax, which older operators take over all axes from theirs on."""
        given = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), None)
        shape = self.values[node.input[0]].shape
        if opset_of(self._foreign.model) >= SOFTMAX_OF_ONE_AXIS:
            return int(shape[-1 if given is None else given])
        return int(np.prod(shape[1 if given is None else given :]))

    def _pieces(self, name: str, role: Role = "unknown", bins: int = 0) -> list[Piece]:
        if name not in self.values or self.values[name].dtype.kind != "f":
            return []
        traced = self._tracer.trace(name)
        found = pieces_of(traced, self.values, self._sizes, role, bins)
        placed = {piece.tensor for piece in found}
        for source in np.unique(traced.source).tolist():
            if (tensor := traced.sources[source]) not in placed:
                self.unplaced[tensor] = self.values[tensor].shape
        if found:
            self.seeds[name] = traced
        return found


def _check_all_levels(
    found: Mapping[tuple[int, int], Pair], unplaced: Mapping[str, tuple[int, ...]], foreign: Foreign
) -> None:
    """Refuse maps that look like those of a level and are of none: it would be left out in silence."""
    maps = [piece for pair in found.values() for piece in pair]
    totals, used = {piece.total for piece in maps}, {piece.tensor for piece in maps}
    for name, shape in unplaced.items():
        if name not in used and len(shape) == 4 and shape[1] in totals:
            height, width = foreign.input_hw
            sizes = [f"{h} x {w}" for h, w in list(grid_sizes(foreign.input_hw))[:6]]
            raise ModelFileError(
                f"{foreign.origin} gives a map of {shape[2]} x {shape[3]} cells ({name[:40]}), which no stride makes "
                f"of its input of {height} x {width}: that would be {', '.join(sizes)}. Export it for an input whose "
                "sides are multiples of its largest stride"
            )


def _small_constants(graph: OnnxGraph) -> dict[str, NDArray[Any]]:
    to_array = optional.load("onnx.numpy_helper").to_array
    small = (tensor for tensor in graph.initializers.values() if tensor.ByteSize() <= MAX_KNOWN_BYTES)
    return {tensor.name: to_array(tensor) for tensor in small}


def _values(foreign: Foreign, tensors: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Of the tensors, for an image of noise, as it may come in."""
    run = runner(foreign.model, tensors, foreign.origin)
    return run({foreign.image: normalized_noise(foreign)})


def normalized_noise(foreign: Foreign, seed: int = 0) -> NDArray[Any]:
    """A random input of the model: around 0 with a deviation of 1, or gray levels where it takes whole numbers."""
    height, width = foreign.input_hw
    shape = (1, 3, height, width) if foreign.layout == "nchw" else (1, height, width, 3)
    image = noise(shape, seed)
    if foreign.dtype == "UINT8":
        return image
    return ((image.astype(np.float32) - 127.5) / 73.6).astype(np.float16 if foreign.dtype == "FLOAT16" else np.float32)


def _with_strides(
    found: Mapping[tuple[int, int], Pair], sizes: Mapping[tuple[int, int], list[int]], foreign: Foreign
) -> tuple[Level, ...]:
    """The levels by size, each of twice the stride of the one before."""
    ordered = sorted(found, reverse=True)
    ways = [
        way
        for way in product(*(sizes[hw] for hw in ordered))
        if all(after == 2 * before for before, after in pairwise(way))
    ]
    if len(ways) != 1 or len(ordered) > MAX_LEVELS:
        count = "more than one way" if ways else "no way"
        raise ModelFileError(
            f"{foreign.origin}: levels of {sizes_of(found)} cells for an input of {foreign.input_hw[0]} x "
            f"{foreign.input_hw[1]} leave {count} of strides that double from level to level"
        )
    return tuple(Level(stride, *found[hw]) for stride, hw in zip(ways[0], ordered, strict=True))


def _checked(
    levels: tuple[Level, ...], given: Given, search: _Search, notes: tuple[str, ...], foreign: Foreign
) -> Head:
    widths = {(level.scores.width, level.distributions.width) for level in levels}
    if len(widths) != 1:
        raise ModelFileError(
            f"{foreign.origin}: its levels differ in channels (scores, distributions): {sorted(widths)[:4]}. {EXPECTED}"
        )
    ((num_classes, width),) = widths
    ends = [limit for level in levels for p in (level.scores, level.distributions) for limit in (p.low, p.high)]
    if not np.isfinite(ends).all():
        raise ModelFileError(f"{foreign.origin} gives NaN or infinite values of a random image. Are its weights whole?")
    if not fits(num_classes, width, Given()):
        raise ModelFileError(
            f"{foreign.origin}: {width} channels of distributions, expected 4 * (reg_max + 1), from {4 * MIN_BINS} on. "
            f"{EXPECTED}"
        )
    for what, found, said in (
        ("classes", num_classes, given.num_classes),
        ("reg_max", width // 4 - 1, given.reg_max),
    ):
        if said not in (None, found):
            raise InputError(
                f"{foreign.origin} has {what} {found}, {said} were given. Correct --classes, --reg-max or --config"
                f"{_anchors(num_classes, width // 4, given)}"
            )
    logits = not all(p.role == "unknown" and p.looks_like_probabilities for p in (level.scores for level in levels))
    used = tuple(seed for seed in search.seeds.values() if _touches(seed, levels))
    rows = np.concatenate([level.distributions.rows(search.values) for level in levels])
    strides = tuple(level.stride for level in levels)
    computed = [value for value in search.values.values() if value.dtype.kind == "f"]
    offset = point_offset_of(rows, computed, foreign.input_hw, strides)
    return Head(levels, num_classes, width // 4 - 1, logits, used, notes, offset)


def _anchors(num_classes: int, bins: int, given: Given) -> str:
    """A hint, where the numbers are those of several anchors per cell with four deltas each."""
    if given.num_classes is None or num_classes != given.num_classes * bins:
        return ""
    return f"; of {bins} anchors per cell with 4 numbers each, as RetinaNet and SSD have, no detector is adopted"


def _touches(seed: Traced, levels: Sequence[Level]) -> bool:
    maps = {piece.tensor for level in levels for piece in (level.scores, level.distributions)}
    return bool(maps.intersection(seed.sources[number] for number in np.unique(seed.source).tolist()))


def _none_found(foreign: Foreign, outputs: Sequence[str], values: Mapping[str, NDArray[Any]]) -> ModelFileError:
    given = {name: values[name].shape for name in outputs if name in values}
    shapes = [f"{name[:40]} {list(shape)}" for name, shape in given.items()]
    cut = f" before {', '.join(foreign.cut_off[:5])}" if foreign.cut_off else ""
    sizes = list(grid_sizes(foreign.input_hw))
    decoded = any(len(shape) == 3 and joins_levels(shape, sizes) for shape in given.values())
    hint = ". It decodes its boxes otherwise than these families do, as YOLO does" if decoded else ""
    return ModelFileError(
        f"{foreign.origin} gives {', '.join(shapes[:8]) or 'nothing'}{cut}, in which there are no maps of levels of an "
        f"input of {foreign.input_hw[0]} x {foreign.input_hw[1]} pixels{hint}. {EXPECTED}"
    )
