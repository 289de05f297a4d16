"""How a foreign detector is run: what its graph, its configuration and the caller say, and what stays open."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, get_args

from gfl_edge.adopt.families import FAMILIES, TRAITS, AdoptedFamily, ChannelOrder, FamilyGuess
from gfl_edge.adopt.inside import InnerNormalization
from gfl_edge.errors import InputError
from gfl_edge.parsing.entries import Triple
from gfl_edge.spec import ResizeRule

RAW_MEAN: Triple = (0.0, 0.0, 0.0)
RAW_STD: Triple = (1.0, 1.0, 1.0)
UNIT_STD: Triple = (255.0, 255.0, 255.0)
POINT_OFFSETS = (0.0, 0.5)
UNNAMED = "custom"  # family of a detector of which everything was given, and that resembles none


@dataclass(frozen=True)
class Choices:
    """How a detector is run; None: not known.

    Attributes:
        family: whose conventions hold where nothing else is known.
        point_offset: cell i of a level lies at ``(i + point_offset) * stride``.
        resize: how frames are brought to the input.
        channel_order: in which the network takes its three channels.
        mean, std: gray levels, in the order of the network's channels.
    """

    family: AdoptedFamily | None = None
    point_offset: float | None = None
    resize: ResizeRule | None = None
    channel_order: ChannelOrder | None = None
    mean: Triple | None = None
    std: Triple | None = None


@dataclass(frozen=True)
class Settled:
    """How a detector is run, all of it.

    Attributes:
        family: as in :class:`Choices`, or ``UNNAMED``.
        open_fields: fields of :class:`Choices` that nobody gave, and the family said.
    """

    family: str
    point_offset: float
    resize: ResizeRule
    channel_order: ChannelOrder
    mean: Triple
    std: Triple
    open_fields: tuple[str, ...] = ()

    @property
    def mean_bgr(self) -> Triple:
        """The mean in the order of blue, green, red."""
        return _in_bgr(self.mean, self.channel_order)

    @property
    def std_bgr(self) -> Triple:
        """The deviation in the order of blue, green, red."""
        return _in_bgr(self.std, self.channel_order)


# The options of `gfl-edge adopt` by field, with what they may be
OPTIONS = {
    "point_offset": "--point-offset 0.5 or 0.0",
    "resize": f"--resize {', '.join(get_args(ResizeRule))}",
    "channel_order": "--channel-order bgr or rgb",
    "mean": "--mean A B C, gray levels",
    "std": "--std A B C, gray levels",
}


def settle(given: Choices, guess: FamilyGuess, inner: InnerNormalization | None, origin: str) -> Settled:
    """What ``given`` says, then the graph, then the family.

    Args:
        given: by the caller and by a configuration.
        guess: the family that the graph looks like.
        inner: the normalization in the graph.
        origin: name of the file, for messages.

    Raises:
        InputError: something is open, and so is the family; lists the choices.
    """
    known = _with_inner(given, inner, origin)
    family = known.family or guess.family
    missing = [name for name in OPTIONS if getattr(known, name) is None]
    if family is None and missing:
        listed = "; ".join(OPTIONS[name] for name in missing)
        raise InputError(
            f"{origin}: the graph does not show of which family it is ({guess.reason}). Say so by --family "
            f"{', '.join(FAMILIES)}, or give what is open: {listed}. With --images and --annotations the AP of each "
            "family is measured"
        )
    values = _of_family(family) if family is not None else Choices()
    if values.channel_order is not None and inner is not None and inner.swaps:
        values = replace(values, channel_order=_other(values.channel_order))
    order = known.channel_order or values.channel_order
    assert order is not None
    for name in missing:
        value = getattr(values, name)
        if name in ("mean", "std"):
            value = _in_bgr(value, order)  # the way there and the way back are the same
        known = replace(known, **{name: value})
    settled: dict[str, Any] = {field.name: getattr(known, field.name) for field in fields(Choices)}
    return Settled(**{**settled, "family": family or UNNAMED}, open_fields=tuple(missing))


def _of_family(family: AdoptedFamily) -> Choices:
    """With mean and deviation in BGR order."""
    traits = TRAITS[family]
    return Choices(family, traits.point_offset, traits.resize, traits.channel_order, traits.mean_bgr, traits.std_bgr)


def _with_inner(given: Choices, inner: InnerNormalization | None, origin: str) -> Choices:
    """What the normalization in the graph says besides: its input is gray levels, or these divided by 255."""
    if inner is None or not inner.normalizes:
        return given
    if given.mean is not None or given.std is not None:
        raise InputError(
            f"{origin} has a normalization in the graph (mean {inner.mean}, std {inner.std}), and --mean or --std were "
            "given. Leave them out"
        )
    order: Any = given.channel_order or inner.order
    std = RAW_STD if inner.of_gray_levels else UNIT_STD
    return replace(given, mean=RAW_MEAN, std=std, channel_order=order)


def alternatives(settled: Settled) -> Iterator[tuple[str, Settled]]:
    """What else could be meant where nobody said it, one thing after the other, each with the options that say it."""
    open_fields = settled.open_fields
    if "point_offset" in open_fields:
        for offset in (offset for offset in POINT_OFFSETS if offset != settled.point_offset):
            yield f"--point-offset {offset:g}", replace(settled, point_offset=offset)
    if "channel_order" in open_fields:
        other = _other(settled.channel_order)
        mean, std = _in_bgr(settled.mean, "rgb"), _in_bgr(settled.std, "rgb")  # each color keeps its own
        yield f"--channel-order {other}", replace(settled, channel_order=other, mean=mean, std=std)
    if "resize" in open_fields:
        for rule in (rule for rule in get_args(ResizeRule) if rule != settled.resize):
            yield f"--resize {rule}", replace(settled, resize=rule)
    if "mean" in open_fields and "std" in open_fields:
        for std in (RAW_STD, UNIT_STD):
            words = f"--mean 0 0 0 --std {' '.join(f'{value:g}' for value in std)}"
            yield words, replace(settled, mean=RAW_MEAN, std=std)


def _other(order: ChannelOrder) -> ChannelOrder:
    return "bgr" if order == "rgb" else "rgb"


def _in_bgr(values: Triple, order: ChannelOrder) -> Triple:
    """Values of channels in that order as blue, green, red."""
    return values if order == "bgr" else (values[2], values[1], values[0])
