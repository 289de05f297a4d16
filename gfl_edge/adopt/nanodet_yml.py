"""What the YAML of RangiLyu/nanodet says of how a detector is run, whatever its weights lie in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gfl_edge.errors import InputError
from gfl_edge.parsing.entries import Entries, Triple
from gfl_edge.parsing.yaml_values import read_yaml
from gfl_edge.spec import ResizeRule


@dataclass(frozen=True)
class NanodetInput:
    """How a configuration has frames brought to the network; None: it does not say.

    Attributes:
        class_names: in the order of the outputs.
        input_hw: (height, width) in pixels.
        resize: how frames are brought to that size.
        mean_bgr, std_bgr: gray levels.
    """

    class_names: tuple[str, ...] | None
    input_hw: tuple[int, int] | None
    resize: ResizeRule
    mean_bgr: Triple | None
    std_bgr: Triple | None


def read_nanodet_entries(path: Path) -> Entries:
    """The values of a configuration of nanodet; nothing in it is executed.

    Raises:
        InputError: unreadable, or none of nanodet's.
        MissingDependencyError: PyYAML is not installed.
    """
    entries = Entries(read_yaml(path), str(path))
    check_nanodet(entries)
    return entries


def check_nanodet(entries: Entries) -> None:
    """Raise InputError unless they are those of a configuration of nanodet."""
    if entries.get("model.arch.head") is None or entries.get("data.val") is None:
        raise InputError(
            f"{entries.origin} is no configuration of nanodet: expected model.arch.head and data.val, as in its "
            "config/*.yml"
        )


def nanodet_input(entries: Entries) -> NanodetInput:
    """What the configuration says of the input; raises InputError that names a value of another kind."""
    mean_bgr, std_bgr = _normalization(entries)
    width_height = entries.integers("data.val.input_size", 2)
    return NanodetInput(
        class_names=entries.names(entries.at("class_names", "data.val.class_names")),
        input_hw=None if width_height is None else (width_height[1], width_height[0]),
        # nanodet's own default is to keep the ratio
        resize="stretch" if entries.flag("data.val.keep_ratio") is False else "letterbox",
        mean_bgr=mean_bgr,
        std_bgr=std_bgr,
    )


def _normalization(entries: Entries) -> tuple[Triple | None, Triple | None]:
    place = "data.val.pipeline.normalize"
    value = entries.get(place)
    if value is None:
        return None, None
    if not isinstance(value, list) or len(value) != 2:
        raise entries.error(place, value, "[mean, std], three numbers each")
    both = Entries({"mean": value[0], "std": value[1]}, f"{entries.origin}: {place}")
    return both.triple("mean"), both.triple("std", positive=True)
