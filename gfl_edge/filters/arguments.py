"""A filter from the words of a command line."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar, cast, get_args

from gfl_edge.annotations.class_names import parse_class_names
from gfl_edge.errors import InputError
from gfl_edge.filters.detection_filter import Anchor, DetectionFilter
from gfl_edge.filters.regions import EXAMPLE, parse_region
from gfl_edge.ops.boxes import MAX_COORDINATE
from gfl_edge.parsing.numbers import number, number_argument
from gfl_edge.parsing.validation import shown
from gfl_edge.spec import SHOWN_SCORE

T = TypeVar("T")


@dataclass(frozen=True)
class Scores:
    """A score for all classes, where there is one, and those of single classes."""

    general: float | None = None
    by_class: dict[str, float] = field(default_factory=dict)


def add_filter(parser: argparse.ArgumentParser, does: str = "draw and write") -> None:
    """``--score``, ``--classes`` and the other options of :func:`read_filter`; ``does`` says what with what counts."""
    add_classes(parser, f"{does} only these")
    add_score(parser, f"{does} from this score on (default: what the model recommends, else {SHOWN_SCORE})")
    parser.add_argument(
        "--region",
        type=argument(parse_region),
        action="append",
        default=[],
        metavar="XY",
        help=f"only objects in this polygon; again for more, of which one suffices: {EXAMPLE}",
    )
    parser.add_argument(
        "--exclude",
        type=argument(parse_region),
        action="append",
        default=[],
        metavar="XY",
        help="no objects in this polygon; again for more",
    )
    parser.add_argument(
        "--region-by",
        type=argument(parse_region_by),
        default="center",
        metavar="PART",
        help="what of a box lies in a region: center, bottom (the middle of its lower edge), or overlap=0.5, a share "
        "of its area (default: center)",
    )
    parser.add_argument(
        "--min-size",
        type=argument(parse_size),
        default=(0.0, 0.0),
        metavar="WxH",
        help="only boxes of at least so many pixels, as 12x30, or 20 for both sides",
    )
    parser.add_argument(
        "--max-edge-sigma",
        type=number_argument(0, float(MAX_COORDINATE)),
        metavar="PX",
        help="only boxes of which no edge has a larger standard deviation, in pixels; of models with --uncertainty",
    )


def add_classes(parser: argparse.ArgumentParser, purpose: str) -> None:
    """``--classes``."""
    parser.add_argument(
        "--classes",
        type=argument(functools.partial(parse_class_names, known=True)),
        action="extend",
        default=[],
        metavar="A,B",
        help=f"{purpose}: names with commas between them, or a file of them; again for more",
    )


def add_score(parser: argparse.ArgumentParser, purpose: str) -> None:
    """``--score``."""
    parser.add_argument(
        "--score",
        type=argument(parse_scores),
        action="append",
        default=[],
        metavar="S",
        help=f"{purpose}; of single classes: person=0.5, or both: 0.3,person=0.5",
    )


def read_filter(args: argparse.Namespace) -> DetectionFilter:
    """The filter that the options of :func:`add_filter` describe.

    Raises:
        InputError: they contradict each other.
    """
    scores = join_scores(args.score)
    return DetectionFilter(
        score=scores.general,
        class_scores=scores.by_class,
        classes=chosen_classes(args),
        regions=tuple(args.region),
        excluded=tuple(args.exclude),
        region_by=args.region_by,
        min_size=args.min_size,
        max_edge_sigma=args.max_edge_sigma,
    )


def chosen_classes(args: argparse.Namespace) -> tuple[str, ...]:
    """The names of all ``--classes``, each once."""
    return tuple(dict.fromkeys(args.classes))


def argument(parse: Callable[[str], T]) -> Callable[[str], T]:
    """The type of an option of argparse that ``parse`` reads, whose InputError is a wrong usage."""

    def read(text: str) -> T:
        try:
            return parse(text)
        except InputError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


def parse_scores(text: str) -> Scores:
    """``0.3``, ``person=0.5``, or several with commas between them; names may have commas and equals signs in them.

    Raises:
        InputError: other text, or one class twice.
    """
    found, name_so_far = Scores(), ""
    for part in text.split(","):
        words = f"{name_so_far}{part}"
        name, _, value = words.rpartition("=")
        score = _score(value)
        if score is None or ("=" in words and not name.strip()):
            name_so_far = f"{words},"  # a name with a comma
            continue
        one = Scores(by_class={name.strip(): score}) if "=" in words else Scores(score)
        found, name_so_far = join_scores([found, one]), ""
    if name_so_far:
        raise InputError(
            f"score {shown(text)}: expected 0..1, CLASS=SCORE, or several with commas between them, as 0.3,person=0.5"
        )
    return found


def join_scores(several: list[Scores]) -> Scores:
    """All of them as one; raises InputError where two are for the same."""
    joined = Scores()
    for scores in several:
        twice = next((name for name in scores.by_class if name in joined.by_class), None)
        if twice is not None or None not in (scores.general, joined.general):
            whose = "for all classes" if twice is None else f"for {shown(twice)}"
            raise InputError(f"two scores {whose} are given: leave one of them out")
        general = joined.general if scores.general is None else scores.general
        joined = Scores(general, {**joined.by_class, **scores.by_class})
    return joined


def parse_region_by(text: str) -> Anchor | float:
    """``center``, ``bottom``, ``overlap``, which is the same as ``overlap=0.5``, or another share of a box's area.

    Raises:
        InputError: other text.
    """
    if text in get_args(Anchor):
        return cast(Anchor, text)
    name, _, value = text.partition("=")
    share = _score(value or "0.5") if name == "overlap" and text != "overlap=" else None
    if not share:
        raise InputError(f"{shown(text)}: expected center, bottom or overlap=S, with S more than 0 and up to 1")
    return share


def parse_size(text: str) -> tuple[float, float]:
    """``12x30``, width and height in pixels, or one number for both.

    Raises:
        InputError: other text.
    """
    words = text.lower().split("x")
    try:
        sides = [float(word) for word in words]
        if len(sides) <= 2:
            return DetectionFilter(min_size=(sides[0], sides[-1])).min_size
    except (ValueError, InputError):
        pass
    raise InputError(f"{shown(text)}: expected a width and height in pixels, as 12x30, or one number for both")


def _score(text: str) -> float | None:
    """The score that a text says; None where it is none."""
    try:
        return number("score", float(text), 0, 1)
    except (ValueError, InputError):
        return None
