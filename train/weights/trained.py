"""What a training knew of its detector and the weights do not show: classes, input size, normalization, thresholds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

from gfl_edge.annotations.class_names import check_class_names
from gfl_edge.errors import InputError
from gfl_edge.parsing.validation import shown
from gfl_edge.spec import ResizeRule
from train.models.detector import DetectorConfig
from train.weights.unwrapping import CheckpointFile

Triple = tuple[float, float, float]
MAX_NUMBER = 1e12  # of those that a configuration gives


@dataclass(frozen=True)
class Claim:
    """What a configuration says of the network, which its weights show as well.

    Attributes:
        place: in the configuration, "model.arch.head.num_classes".
        field: of the network's own configuration, "num_classes".
        value: as that has it.
    """

    place: str
    field: str
    value: Any


@dataclass(frozen=True)
class Trained:
    """What a file says of how the detector was trained; None: nothing.

    Attributes:
        origin: the file, for messages.
        name: what exported files are called, before their size.
        class_names: in the order of the outputs.
        input_hw: (height, width) in pixels.
        short_long: pixels of the shorter and the longer side, where the input was of dynamic size.
        resize: how frames were brought to that size.
        mean_bgr, std_bgr: gray levels.
        channel_order: in which the network took its three channels.
        score_threshold, iou_threshold, max_detections: of the evaluation.
        recommended_score: see :class:`gfl_edge.spec.ModelSpec`.
        claims: to be compared with the weights.
    """

    origin: str = ""
    name: str | None = None
    class_names: tuple[str, ...] | None = None
    input_hw: tuple[int, int] | None = None
    short_long: tuple[int, int] | None = None
    resize: ResizeRule | None = None
    mean_bgr: Triple | None = None
    std_bgr: Triple | None = None
    channel_order: Literal["bgr", "rgb"] | None = None
    score_threshold: float | None = None
    iou_threshold: float | None = None
    max_detections: int | None = None
    recommended_score: float | None = None
    claims: tuple[Claim, ...] = ()

    def __str__(self) -> str:
        """What it says, on one line, for the log."""
        names = self.class_names or ()
        said = [
            names and f"{len(names)} classes ({', '.join(names[:5])}{' ...' if len(names) > 5 else ''})",
            self.input_hw and "input of {} x {} (height x width)".format(*self.input_hw),
            self.resize,
            self.mean_bgr and f"mean {_numbers(self.mean_bgr)}, std {_numbers(self.std_bgr or ())} (BGR)",
            self.score_threshold is not None and f"scores above {self.score_threshold:g}",
            self.iou_threshold is not None and f"NMS above an IoU of {self.iou_threshold:g}",
            self.recommended_score is not None and f"to be shown from a score of {self.recommended_score:g}",
        ]
        return f"{self.origin}: " + (", ".join(text for text in said if text) or "nothing that an export needs")

    def or_else(self, other: Trained) -> Trained:
        """This, and where it says nothing, the other."""
        known = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(other, **{name: value for name, value in known.items() if value not in (None, ())})

    def check(self, network: DetectorConfig, weights: str) -> None:
        """Raise InputError, which names both values, where it contradicts the network that was read off the weights."""
        for claim in self.claims:
            found = getattr(network, claim.field, None)
            if found != claim.value:
                raise InputError(
                    f"{self.origin}: {claim.place} is {shown(claim.value)}, but the weights of {weights} have "
                    f"{shown(found)}. Give the configuration that they were trained with: --config FILE"
                )


class Entries:
    """Typed access to a tree of plain values by dotted places, with errors that name them.

    Args:
        values: mappings, lists, texts, numbers, None.
        origin: the file, for messages.
    """

    def __init__(self, values: Any, origin: str) -> None:
        self.values, self.origin = values, origin

    def get(self, place: str) -> Any:
        """The value, None where there is none."""
        value = self.values
        for name in place.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        return value

    def at(self, *places: str) -> str:
        """The first of the places that there is, else the last of them."""
        return next((place for place in places if self.get(place) is not None), places[-1])

    def text(self, place: str) -> str | None:
        """A text."""
        return self._typed(place, "a text", lambda value: isinstance(value, str))

    def choice(self, place: str, choices: Sequence[str]) -> Any:
        """One of several texts."""
        return self._typed(
            place, f"one of {', '.join(choices)}", lambda value: isinstance(value, str) and value in choices
        )

    def flag(self, place: str) -> bool | None:
        """True or false."""
        return self._typed(place, "true or false", lambda value: isinstance(value, bool))

    def integer(self, place: str, least: int = 1) -> int | None:
        """A whole number from ``least`` on."""
        return self._typed(
            place, f"a whole number from {least} on", lambda value: _is_integer(value) and value >= least
        )

    def share(self, place: str) -> float | None:
        """A number from 0 to 1."""
        return self._typed(place, "a number from 0 to 1", lambda value: _is_number(value) and 0 <= value <= 1)

    def integers(self, place: str, count: int | None = None) -> tuple[int, ...] | None:
        """Whole numbers from 1 on."""
        what = f"{count or 'some'} whole numbers from 1 on"
        value = self._typed(place, what, lambda value: _is_list(value, count, lambda x: _is_integer(x) and x >= 1))
        return None if value is None else tuple(value)

    def triple(self, place: str, positive: bool = False) -> Triple | None:
        """Three numbers, one a channel; of one number, that three times."""
        value = self.get(place)
        if _is_number(value):
            value = [value] * 3
        if value is None:
            return None
        if not _is_list(value, 3, lambda x: _is_number(x) and (x > 0 or not positive)):
            raise self.error(place, value, "three numbers, one a channel" + (", above 0" if positive else ""))
        first, second, third = map(float, value)
        return first, second, third

    def names(self, place: str) -> tuple[str, ...] | None:
        """Class names; a single one may stand without a list."""
        value = self.get(place)
        if value is None:
            return None
        listed = [value] if isinstance(value, str) else value
        if not _is_list(listed, None, lambda x: isinstance(x, str)):
            raise self.error(place, value, "a list of class names")
        numbered = [(name, f"{place}[{index}]") for index, name in enumerate(listed)]
        return check_class_names(numbered, self.origin)

    def error(self, place: str, value: Any, expected: str) -> InputError:
        """To raise for a value of another kind."""
        return InputError(f"{self.origin}: {place} is {shown(value)}, expected {expected}. Correct it")

    def _typed(self, place: str, expected: str, is_right: Any) -> Any:
        value = self.get(place)
        if value is not None and not is_right(value):
            raise self.error(place, value, expected)
        return value


def trained_of_own(file: CheckpointFile) -> Trained | None:
    """What a checkpoint of our own says, see :mod:`train.checkpoint`; None for those of other projects."""
    config = file.content.get("config")
    if file.architecture is None or not isinstance(config, Mapping):
        return None
    entries = Entries(file.content, str(file.path))
    height_width, short_long = (entries.integers(f"config.data.{name}", 2) for name in ("input_hw", "short_long"))
    return Trained(
        origin=str(file.path),
        name=entries.text("config.model.name"),
        class_names=entries.names("class_names"),
        input_hw=pair(height_width),
        short_long=pair(short_long),
        resize=entries.choice("config.data.resize", get_args(ResizeRule)),
        recommended_score=entries.share("metrics.best_score"),
    )


def pair(values: Sequence[int] | None) -> tuple[int, int] | None:
    """Two values as a pair."""
    return None if values is None else (values[0], values[1])


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < MAX_NUMBER


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_list(value: Any, count: int | None, is_right: Any) -> bool:
    return (
        isinstance(value, (list, tuple))
        and (len(value) == count if count else len(value) > 0)
        and all(is_right(item) for item in value)
    )


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)
