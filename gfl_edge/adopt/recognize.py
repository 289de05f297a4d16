"""What a foreign graph shows of a GFL detector: its levels, classes, bins, and whether scores are logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gfl_edge import optional
from gfl_edge.adopt.dry_run import noise, runner
from gfl_edge.adopt.foreign import Foreign
from gfl_edge.adopt.maps import Piece, grid_sizes, pieces_of
from gfl_edge.adopt.trace import Traced, Tracer, tail
from gfl_edge.errors import InputError, ModelFileError
from gfl_edge.ops.onnx_graph import OnnxGraph
from gfl_edge.ops.onnx_limits import MAX_KNOWN_BYTES

MAX_LEVELS = 8
MIN_BINS = 2
EXPECTED = (
    "Expected a NanoDet, NanoDet-Plus, PicoDet or GFL detector: class scores and the raw distributions of four edges, "
    "4 * (reg_max + 1) channels, on each of several levels"
)


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
    """

    levels: tuple[Level, ...]
    num_classes: int
    reg_max: int
    logits: bool
    seeds: tuple[Traced, ...]
    notes: tuple[str, ...]

    @property
    def strides(self) -> tuple[int, ...]:
        """Of the levels."""
        return tuple(level.stride for level in self.levels)


@dataclass(frozen=True)
class Given:
    """What is known beside the graph, each with who said it; None: nothing.

    Attributes:
        num_classes: C.
        reg_max: bins per edge, less one.
    """

    num_classes: int | None = None
    reg_max: int | None = None


def find_head(foreign: Foreign, given: Given) -> Head:
    """Find the maps of a detector.

    Args:
        foreign: the model.
        given: what is known beside it.

    Raises:
        ModelFileError: it has none of a GFL detector, or cannot be run.
        InputError: the graph leaves open what is what, and so does ``given``, or contradicts it.
    """
    graph = OnnxGraph(foreign.model)
    outputs = [value.name for value in foreign.model.graph.output]
    nodes, tensors = tail(graph, outputs)
    values = {**_small_constants(graph), **_values(foreign, tensors)}
    tracer, sizes = Tracer(graph, values), grid_sizes(foreign.input_hw)
    seeds: dict[str, Traced] = {}

    def pieces(name: str, role: Any = "unknown", bins: int = 0) -> list[Piece]:
        if name not in values or values[name].dtype.kind != "f":
            return []
        traced = tracer.trace(name)
        found = pieces_of(traced, values, sizes, role, bins)
        if found:
            seeds[name] = traced
        return found

    softmaxes = {node.output[0] for node in nodes if node.op_type == "Softmax"}
    ends = [piece for name in outputs for piece in pieces(name) if piece.tensor not in softmaxes]
    softmaxed = [
        piece
        for node in nodes
        if node.op_type == "Softmax" and node.input[0] in values
        for piece in pieces(node.input[0], "distributions", values[node.input[0]].shape[_axis(node)])
        if piece.width == 4 * piece.bins
    ]
    inner = [p for node in nodes if node.op_type == "Sigmoid" for p in pieces(node.input[0], "scores")]
    if any(piece.is_map for piece in (*ends, *softmaxed, *inner)):
        # Rows of anything else may be as many as a level has cells: 100 detections, and 10 x 10 cells
        ends, softmaxed, inner = ([piece for piece in group if piece.is_map] for group in (ends, softmaxed, inner))
    if not ends and not softmaxed:
        raise _none_found(foreign, outputs, values)
    pairs, notes = _pairs(ends, softmaxed, inner, given, foreign)
    levels = _with_strides(pairs, sizes, foreign)
    return _checked(levels, given, tuple(seeds.values()), tuple(notes), foreign)


def _axis(node: Any) -> int:
    found = [attribute.i for attribute in node.attribute if attribute.name == "axis"]
    return int(found[0]) if found else -1


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


Pair = tuple[Piece, Piece]  # scores and distributions of a level


def _pairs(
    ends: Sequence[Piece], softmaxed: Sequence[Piece], inner: Sequence[Piece], given: Given, foreign: Foreign
) -> tuple[dict[tuple[int, int], Pair], list[str]]:
    """Scores and distributions by size of the map, and how they were told apart."""
    scores = _by_size([piece for piece in ends if piece.role == "scores"])
    distributions = _by_size(softmaxed)
    open_ones = _by_size(_without(ends, [*softmaxed, *(p for p in ends if p.role == "scores")]))
    notes = []
    if scores:
        notes.append("scores: the sigmoid at the end of the graph, which is cut off")
    if distributions:
        notes.append("distributions: the softmax in the graph")
    if open_ones and not (scores and distributions):
        told = _told_apart(open_ones, bool(scores), bool(distributions), given, foreign)
        for target, found in ((scores, told[0]), (distributions, told[1])):
            target.update({hw: [piece] for hw, piece in found.items()})
        notes.append(told[2])
    if not scores:
        scores = _by_size(_largest(_without(inner, softmaxed)))
        notes.append("scores: what the graph takes a sigmoid of")
    if not scores or not distributions:
        missing = "no class scores" if not scores else "no distributions"
        raise ModelFileError(f"{foreign.origin}: found {missing} among what it gives. {EXPECTED}")
    return _joined(scores, distributions, foreign), notes


def _by_size(pieces: Sequence[Piece]) -> dict[tuple[int, int], list[Piece]]:
    found: dict[tuple[int, int], list[Piece]] = {}
    for piece in dict.fromkeys(pieces):
        found.setdefault(piece.hw, []).append(piece)
    return found


def _largest(pieces: Sequence[Piece]) -> list[Piece]:
    """Of inner sigmoids at each level that of most channels: the others are of a quality, or of an alignment."""
    return [max(group, key=lambda piece: piece.width) for group in _by_size(pieces).values()]


def _without(pieces: Sequence[Piece], known: Sequence[Piece]) -> list[Piece]:
    """The channels of pieces that are in none of the known ones."""
    left = []
    for piece in (piece for piece in pieces if piece not in known):
        taken = sorted(other.channels for other in known if other.tensor == piece.tensor)
        start = piece.channels[0]
        for low, high in [*taken, (piece.channels[1], piece.channels[1])]:
            low, high = max(low, start), max(high, start)
            if start < min(low, piece.channels[1]):
                left.append(replace(piece, channels=(start, min(low, piece.channels[1]))))
            start = max(start, high)
    return left


Told = tuple[dict[tuple[int, int], Piece], dict[tuple[int, int], Piece], str]


def _told_apart(
    open_ones: Mapping[tuple[int, int], list[Piece]],
    scores_known: bool,
    distributions_known: bool,
    given: Given,
    foreign: Foreign,
) -> Told:
    """Scores and distributions among what the graph takes for neither, by the numbers of their channels."""
    if scores_known or distributions_known:
        single = {hw: group[0] for hw, group in open_ones.items() if len(group) == 1}
        several = next((group for group in open_ones.values() if len(group) > 1), None)
        if several is not None:
            raise _too_many(several, foreign)
        if scores_known:
            return {}, single, "distributions: the outputs without a sigmoid"
        return single, {}, "scores: the outputs without a softmax"
    groups = list(open_ones.values())
    if set(open_ones) == {(1, 1)}:  # of a classifier, most likely
        raise ModelFileError(f"{foreign.origin} gives {groups[0][0].width} numbers for the whole image. {EXPECTED}")
    if any(len(group) > 2 for group in groups):
        raise _too_many(max(groups, key=len), foreign)
    if all(len(group) == 1 for group in groups):
        return _split(groups, given, foreign)
    two = [sorted(group, key=lambda piece: piece.width) for group in groups if len(group) == 2]
    likely = [[piece.looks_like_probabilities for piece in group] for group in groups if len(group) == 2]
    if all(sum(of_level) == 1 for of_level in likely):
        chosen = {pair[0].hw: pair for pair in two}
        scores = {hw: next(p for p in pair if p.looks_like_probabilities) for hw, pair in chosen.items()}
        others = {hw: next(p for p in pair if not p.looks_like_probabilities) for hw, pair in chosen.items()}
        return scores, others, "scores: the outputs whose every value lies within 0 and 1"
    return _by_widths(two, given, foreign)


def _by_widths(pairs: list[list[Piece]], given: Given, foreign: Foreign) -> Told:
    """By what ``given`` says of the numbers of channels, or by what they can be."""
    ways = {(s.width, d.width) for pair in pairs for s, d in (pair, pair[::-1])}
    fitting = [way for way in ways if _fits(*way, given)]
    if len(fitting) != 1:
        raise _open_widths(fitting or [way for way in ways if _fits(*way, Given())], given, foreign)
    ((num_classes, width),) = fitting
    scores = {p.hw: p for pair in pairs for p in pair if p.width == num_classes}
    others = {p.hw: p for pair in pairs for p in pair if p.width == width}
    if num_classes == width:
        raise InputError(
            f"{foreign.origin}: scores and distributions both have {width} channels, and nothing in the graph tells "
            "them apart. Export it with the sigmoid of the scores"
        )
    return scores, others, f"scores and distributions: by their {num_classes} and {width} channels"


def _split(groups: list[list[Piece]], given: Given, foreign: Foreign) -> Told:
    """Channels of scores and distributions in one map, scores first, as nanodet writes them."""
    (total,) = {group[0].width for group in groups} if len({group[0].width for group in groups}) == 1 else (0,)
    fitting = [(total - w, w) for w in range(4 * MIN_BINS, total, 4) if _fits(total - w, w, given)]
    if len(fitting) != 1:
        raise _open_widths(fitting, given, foreign)
    ((num_classes, _),) = fitting
    scores, others = {}, {}
    for (piece,) in groups:
        start, stop = piece.channels
        scores[piece.hw] = replace(piece, channels=(start, start + num_classes))
        others[piece.hw] = replace(piece, channels=(start + num_classes, stop))
    return scores, others, f"scores: the first {num_classes} of {total} channels, as nanodet writes them"


def _fits(num_classes: int, width: int, given: Given) -> bool:
    bins, rest = divmod(width, 4)
    return (
        not rest and bins >= MIN_BINS and given.num_classes in (None, num_classes) and given.reg_max in (None, bins - 1)
    )


def _open_widths(ways: Sequence[tuple[int, int]], given: Given, foreign: Foreign) -> InputError:
    listed = [f"{classes} classes with reg_max {width // 4 - 1}" for classes, width in sorted(ways, key=lambda w: w[1])]
    usual = sorted(listed, key=lambda text: not text.endswith(("reg_max 7", "reg_max 16", "reg_max 10")))[:6]
    if not listed:
        said = [
            f"{given.num_classes} classes" if given.num_classes else "",
            f"reg_max {given.reg_max}" if given.reg_max else "",
        ]
        return InputError(
            f"{foreign.origin}: the numbers of its channels do not fit {' and '.join(filter(None, said)) or 'any'}. "
            "Correct --classes, --reg-max or --config, or leave them out"
        )
    return InputError(
        f"{foreign.origin}: the graph does not tell scores from distributions. It may have {', or '.join(usual)}"
        f"{' and more' if len(listed) > len(usual) else ''}. Say which: --classes NAMES, or --reg-max N"
    )


def _too_many(group: Sequence[Piece], foreign: Foreign) -> ModelFileError:
    listed = ", ".join(f"{piece.tensor[:40]!r} ({piece.width} channels)" for piece in group[:6])
    return ModelFileError(f"{foreign.origin} has {len(group)} outputs of one level: {listed}. {EXPECTED}")


def _joined(
    scores: Mapping[tuple[int, int], list[Piece]],
    distributions: Mapping[tuple[int, int], list[Piece]],
    foreign: Foreign,
) -> dict[tuple[int, int], Pair]:
    if set(scores) != set(distributions):
        raise ModelFileError(
            f"{foreign.origin}: scores on levels of {_sizes(scores)} cells, distributions on {_sizes(distributions)}. "
            f"{EXPECTED}"
        )
    for group in (*scores.values(), *distributions.values()):
        if len(group) > 1:
            raise _too_many(group, foreign)
    return {hw: (scores[hw][0], distributions[hw][0]) for hw in scores}


def _sizes(levels: Mapping[tuple[int, int], Any]) -> str:
    return ", ".join(f"{height} x {width}" for height, width in sorted(levels, reverse=True)[:MAX_LEVELS]) or "none"


def _with_strides(
    pairs: Mapping[tuple[int, int], Pair], sizes: Mapping[tuple[int, int], list[int]], foreign: Foreign
) -> tuple[Level, ...]:
    """The levels by size, each of twice the stride of the one before."""
    ordered = sorted(pairs, reverse=True)
    ways = [
        way
        for way in product(*(sizes[hw] for hw in ordered))
        if all(after == 2 * before for before, after in pairwise(way))
    ]
    if len(ways) != 1 or len(ordered) > MAX_LEVELS:
        found = "more than one way" if ways else "no way"
        raise ModelFileError(
            f"{foreign.origin}: levels of {_sizes(pairs)} cells for an input of {foreign.input_hw[0]} x "
            f"{foreign.input_hw[1]} leave {found} of strides that double from level to level"
        )
    return tuple(Level(stride, *pairs[hw]) for stride, hw in zip(ways[0], ordered, strict=True))


def _checked(
    levels: tuple[Level, ...], given: Given, seeds: tuple[Traced, ...], notes: tuple[str, ...], foreign: Foreign
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
    if not _fits(num_classes, width, Given()):
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
            )
    logits = not all(p.role == "unknown" and p.looks_like_probabilities for p in (level.scores for level in levels))
    used = tuple(seed for seed in seeds if _touches(seed, levels))
    return Head(levels, num_classes, width // 4 - 1, logits, used, notes)


def _touches(seed: Traced, levels: Sequence[Level]) -> bool:
    maps = {piece.tensor for level in levels for piece in (level.scores, level.distributions)}
    return bool(maps.intersection(seed.sources[number] for number in np.unique(seed.source).tolist()))


def _none_found(foreign: Foreign, outputs: Sequence[str], values: Mapping[str, NDArray[Any]]) -> ModelFileError:
    shapes = [f"{name[:40]} {list(values[name].shape)}" for name in outputs if name in values]
    cut = f" before {', '.join(foreign.cut_off[:5])}" if foreign.cut_off else ""
    return ModelFileError(
        f"{foreign.origin} gives {', '.join(shapes[:8]) or 'nothing'}{cut}, in which there are no maps of levels of an "
        f"input of {foreign.input_hw[0]} x {foreign.input_hw[1]} pixels. {EXPECTED}"
    )
