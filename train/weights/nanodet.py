"""Checkpoints of RangiLyu/nanodet."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from train.models.nanodet import NanoDetConfig
from train.models.traits import Family

# Of no use at inference: NanoDet-Plus' auxiliary head (aux_*), and NanoDet-m's gfl_reg, which its head never calls.
UNUSED_KEYS = re.compile(r"(aux_fpn|aux_head)\.|head\.gfl_reg\.\d+\.(weight|bias)$")
PROJECT_KEY = "head.distribution_project.project"  # the constant 0, 1, ... reg_max

FAMILY_KEYS: dict[str, Family] = {
    "fpn.reduce_layers.0.conv.weight": "nanodet-plus",
    "fpn.lateral_convs.0.conv.weight": "nanodet",
}
NEEDED_KEYS = ("head.gfl_cls.0.weight", "head.cls_convs.0.0.depthwise.weight", "backbone.conv1.0.weight")


def infer_nanodet(state: Mapping[str, Tensor]) -> NanoDetConfig | None:
    """The architecture that keys and shapes speak of; None if they are not a NanoDet's."""
    family = next((family for key, family in FAMILY_KEYS.items() if key in state), None)
    if family is None or any(key not in state for key in NEEDED_KEYS):
        return None
    reg_max = len(state[PROJECT_KEY]) - 1 if PROJECT_KEY in state else NanoDetConfig.reg_max
    outputs, neck_channels = state["head.gfl_cls.0.weight"].shape[:2]
    widths = [2 * len(state[f"backbone.{stage}.0.branch2.0.weight"]) for stage in ("stage2", "stage3", "stage4")]
    towers = {key.split(".")[3] for key in state if key.startswith("head.cls_convs.0.")}
    return NanoDetConfig(
        family=family,
        num_classes=outputs - 4 * (reg_max + 1),
        reg_max=reg_max,
        stage_channels=(widths[0], widths[1], widths[2]),
        neck_channels=neck_channels,
        stacked_convs=len(towers),
    )
