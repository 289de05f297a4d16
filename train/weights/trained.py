"""What a training knew of its detector and the weights do not show: classes, input size, normalization, thresholds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

from gfl_edge.errors import InputError
from gfl_edge.parsing.entries import Entries, Triple, pair
from gfl_edge.parsing.validation import shown
from gfl_edge.spec import ResizeRule
from train.models.detector import DetectorConfig
from train.weights.unwrapping import CheckpointFile


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


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)
