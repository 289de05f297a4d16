"""Which of a detector's maps are scores, and which distributions: by what the graph takes of them, or by channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gfl_edge.adopt.foreign import EXPECTED, Foreign
from gfl_edge.adopt.maps import Piece
from gfl_edge.errors import InputError, ModelFileError

MAX_LEVELS = 8
MIN_BINS = 2
USUAL_REG_MAX = (7, 8, 10, 16)
# Of an image of noise, logits of each class are -3.2 at most in the mean over a level of the published networks, and
# the first bins of an edge 0 to 1.4
RARE, ORDINARY = -2.0, -1.0


@dataclass(frozen=True)
class Given:
    """What is known beside the graph, each with who said it; None: nothing.

    Attributes:
        num_classes: C.
        reg_max: bins per edge, less one.
    """

    num_classes: int | None = None
    reg_max: int | None = None


Pair = tuple[Piece, Piece]  # scores and distributions of a level


def pairs(
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
        missing = "no class scores that are a sigmoid of one map" if not scores else "no distributions"
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
                left.append(piece.part(start, min(low, piece.channels[1])))
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
    fitting = [way for way in ways if fits(*way, given)]
    if len(fitting) != 1:
        raise _open_widths(fitting, given, foreign, sorted({piece.width for pair in pairs for piece in pair}))
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
    fitting = [(total - w, w) for w in range(4 * MIN_BINS, total, 4) if fits(total - w, w, given)]
    if len(fitting) != 1:
        raise _open_widths(fitting, given, foreign, sorted({group[0].width for group in groups}))
    ((num_classes, width),) = fitting
    if given.reg_max is None and width // 4 - 1 not in USUAL_REG_MAX:
        raise InputError(
            f"{foreign.origin}: with {num_classes} classes, {total} channels leave reg_max {width // 4 - 1}, which is "
            f"unusual. Correct --classes, or say --reg-max {width // 4 - 1} as well"
        )
    pieces = [piece for (piece,) in groups]
    last = all(max(p.means[-num_classes:]) < RARE < ORDINARY < max(p.means[:num_classes]) for p in pieces)
    scores, others = {}, {}
    for piece in pieces:
        start, stop = piece.channels
        middle = stop - num_classes if last else start + num_classes
        parts = [piece.part(start, middle), piece.part(middle, stop)]
        scores[piece.hw], others[piece.hw] = parts[::-1] if last else parts
    if last:
        return scores, others, f"scores: the last {num_classes} of {total} channels, which are far below 0 of noise"
    return scores, others, f"scores: the first {num_classes} of {total} channels, as nanodet writes them"


def fits(num_classes: int, width: int, given: Given) -> bool:
    """Whether so many channels can be scores and distributions, and contradict nothing that is given."""
    bins, rest = divmod(width, 4)
    return (
        not rest and bins >= MIN_BINS and given.num_classes in (None, num_classes) and given.reg_max in (None, bins - 1)
    )


def _open_widths(ways: Sequence[tuple[int, int]], given: Given, foreign: Foreign, widths: Sequence[int]) -> InputError:
    listed = [f"{classes} classes with reg_max {width // 4 - 1}" for classes, width in sorted(ways, key=lambda w: w[1])]
    usual = sorted(listed, key=lambda text: not text.endswith(tuple(f"reg_max {n}" for n in USUAL_REG_MAX)))[:6]
    if not listed:
        said = [
            f"{given.num_classes} classes" if given.num_classes else "",
            f"reg_max {given.reg_max}" if given.reg_max else "",
        ]
        return InputError(
            f"{foreign.origin}: the numbers of its channels, {' and '.join(map(str, widths))}, do not fit "
            f"{' and '.join(filter(None, said)) or 'any'}. Correct --classes, --reg-max or --config, or leave them out"
        )
    return InputError(
        f"{foreign.origin}: the graph does not tell scores from distributions. It may have {', or '.join(usual)}"
        f"{' and more' if len(listed) > len(usual) else ''}. Say which: --classes NAMES, or --reg-max N"
    )


def _too_many(group: Sequence[Piece], foreign: Foreign) -> ModelFileError:
    listed = ", ".join(f"{piece.tensor[:40]!r} ({piece.width} channels)" for piece in group[:6])
    single = any(piece.width == 1 for piece in group)
    hint = ". One channel by itself is an objectness or a centerness, as YOLOX, FCOS and ATSS have" if single else ""
    return ModelFileError(f"{foreign.origin} has {len(group)} outputs of one level: {listed}{hint}. {EXPECTED}")


def _joined(
    scores: Mapping[tuple[int, int], list[Piece]],
    distributions: Mapping[tuple[int, int], list[Piece]],
    foreign: Foreign,
) -> dict[tuple[int, int], Pair]:
    if set(scores) != set(distributions):
        raise ModelFileError(
            f"{foreign.origin}: scores on levels of {sizes_of(scores)} cells, distributions on "
            f"{sizes_of(distributions)}. {EXPECTED}"
        )
    for group in (*scores.values(), *distributions.values()):
        if len(group) > 1:
            raise _too_many(group, foreign)
    return {hw: (scores[hw][0], distributions[hw][0]) for hw in scores}


def sizes_of(levels: Mapping[tuple[int, int], Any]) -> str:
    """The sizes of levels in cells, for people."""
    return ", ".join(f"{height} x {width}" for height, width in sorted(levels, reverse=True)[:MAX_LEVELS]) or "none"
