"""Checkpoints of RangiLyu/nanodet."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from train.models.nanodet import NANODET_G, NanoDetConfig
from train.models.traits import Family

# Of no use at inference: NanoDet-Plus' auxiliary head, and the gfl_reg of the others, which their heads never call
UNUSED_KEYS = re.compile(r"(aux_fpn|aux_head)\.|head\.gfl_reg\.\d+\.(weight|bias)$")
PROJECT_KEY = "head.distribution_project.project"  # the constant 0, 1, ... reg_max

SHUFFLENET_KEYS = ("head.cls_convs.0.0.depthwise.weight", "backbone.conv1.0.weight")
CSP_KEYS = tuple(f"backbone.stages.{stage}.in_conv.conv.weight" for stage in (3, 4, 5))  # of the stages that are used
FAMILY_KEYS: dict[Family, tuple[str, ...]] = {
    "nanodet-plus": ("head.gfl_cls.0.weight", "fpn.reduce_layers.0.conv.weight", *SHUFFLENET_KEYS),
    "nanodet": ("head.gfl_cls.0.weight", "fpn.lateral_convs.0.conv.weight", *SHUFFLENET_KEYS),
    "nanodet-g": ("head.gfl_cls.0.weight", "fpn.lateral_convs.0.conv.weight", *CSP_KEYS),
}


def infer_nanodet(state: Mapping[str, Tensor]) -> NanoDetConfig | None:
    """The architecture that keys and shapes speak of; None if they are not a NanoDet's."""
    family = next((family for family, keys in FAMILY_KEYS.items() if all(key in state for key in keys)), None)
    if family is None:
        return None
    default = NANODET_G.reg_max if family == "nanodet-g" else NanoDetConfig.reg_max
    reg_max = len(state[PROJECT_KEY]) - 1 if PROJECT_KEY in state else default
    outputs, neck_channels = state["head.gfl_cls.0.weight"].shape[:2]
    if family == "nanodet-g":
        halves = CSP_KEYS
    else:
        halves = tuple(f"backbone.{stage}.0.branch2.0.weight" for stage in ("stage2", "stage3", "stage4"))
    widths = [2 * len(state[key]) for key in halves]
    towers = {key.split(".")[3] for key in state if key.startswith("head.cls_convs.0.")}
    return NanoDetConfig(
        family=family,
        num_classes=outputs - 4 * (reg_max + 1),
        reg_max=reg_max,
        stage_channels=(widths[0], widths[1], widths[2]),
        neck_channels=neck_channels,
        stacked_convs=len(towers),
    )
