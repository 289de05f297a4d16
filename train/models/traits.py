"""How each family of detectors was trained, which its checkpoints do not say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gfl_edge.adopt.families import TRAITS as CONVENTIONS
from gfl_edge.adopt.families import AdoptedTraits

Family = Literal[
    "nanodet",
    "nanodet-g",
    "nanodet-t",
    "nanodet-efficientlite",
    "nanodet-repvgg",
    "nanodet-plus",
    "gfl",
    "gflv2",
    "atss",
    "sapd",
]
# What the class score is trained to be: the box's IoU, or 1 beside a branch of its own for the centerness (ATSS), or 1
Quality = Literal["joint", "centerness", "none"]
# What is predicted of a box: distributions of its edges, their distances, or how it differs from an anchor
Regression = Literal["distribution", "dirac", "delta"]


@dataclass(frozen=True, kw_only=True)
class FamilyTraits(AdoptedTraits):
    """Input convention and point grid of a family, and how it is trained and evaluated.

    Attributes:
        default_hw: (height, width) in pixels.
        threshold_power: a detection's score has to exceed the threshold of the evaluation to this power. 2 where that
            is a threshold of the class score, which is then multiplied by the centerness: the product exceeds the
            square wherever both exceed the threshold.
    """

    default_hw: tuple[int, int]
    threshold_power: int = 1


def _traits(convention: AdoptedTraits, side: int = 0, threshold_power: int = 1) -> FamilyTraits:
    """With a square input of that side, or mmdetection's."""
    default_hw = (side, side) if side else (800, 1344)
    return FamilyTraits(**vars(convention), default_hw=default_hw, threshold_power=threshold_power)


TRAITS: dict[Family, FamilyTraits] = {
    "nanodet": _traits(CONVENTIONS["nanodet"], 320),
    "nanodet-g": _traits(CONVENTIONS["nanodet-g"], 416),
    "nanodet-t": _traits(CONVENTIONS["nanodet-t"], 320),
    "nanodet-efficientlite": _traits(CONVENTIONS["nanodet-efficientlite"], 320),
    "nanodet-repvgg": _traits(CONVENTIONS["nanodet-repvgg"], 416),
    "nanodet-plus": _traits(CONVENTIONS["nanodet-plus"], 416),
    "gfl": _traits(CONVENTIONS["gfl"]),
    "gflv2": _traits(CONVENTIONS["gfl"]),
    # configs/atss, and base_dense_head.py (_predict_by_feat_single), which filters before it multiplies
    "atss": _traits(CONVENTIONS["gfl"], threshold_power=2),
    # Zhu et al., ECCV 2020, section 3.1
    "sapd": _traits(AdoptedTraits("fit", 0.5, "rgb")),
}
