"""Checkpoints of RangiLyu/nanodet."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from gfl_edge.errors import CheckpointError
from train.models.efficientnet_lite import C3_ROW, C4_ROW, C5_ROW
from train.models.nanodet import PUBLISHED, STAGES_OF, NanoDetConfig
from train.models.repvgg import STAGES
from train.models.traits import Family
from train.weights.keys import count_indices

# Of no use at inference: NanoDet-Plus' auxiliary head, and what the others never call: the gfl_reg of their heads, and
# a layer of NanoDet-t's neck
UNUSED_KEYS = re.compile(
    r"(aux_fpn|aux_head)\.|head\.gfl_reg\.\d+\.(weight|bias)$|fpn\.transformer\.linear\.(weight|bias)$"
)
PROJECT_KEY = "head.distribution_project.project"  # the constant 0, 1, ... reg_max
BUILT_OTHERWISE = (
    "Where nanodet built it otherwise than its published networks, have its tools/export_onnx.py write an ONNX file, "
    "and take that with: gfl-edge adopt"
)
POSITIONS_KEY = "fpn.pos_embed"  # [height * width, 1, channels]

CSP_KEYS = tuple(f"backbone.stages.{stage}.in_conv.conv.weight" for stage in (3, 4, 5))  # of the stages that are used
SHUFFLENET_KEYS = tuple(f"backbone.{stage}.0.branch2.0.weight" for stage in ("stage2", "stage3", "stage4"))
LITE_KEYS = tuple(f"backbone.blocks.{row}.0._project_conv.weight" for row in (C3_ROW, C4_ROW, C5_ROW))
# A checkpoint of RepVGG has three branches, or one after it was converted
REPVGG_KEYS = tuple(f"backbone.{stage}.0.rbr_dense.0.weight" for stage in STAGES[1:])
MERGED_KEYS = tuple(f"backbone.{stage}.0.rbr_reparam.weight" for stage in STAGES[1:])

HEAD_KEY, PAN_KEY = "head.gfl_cls.0.weight", "fpn.lateral_convs.0.conv.weight"
PLAIN_KEY, SEPARABLE_KEY = "head.cls_convs.0.0.conv.weight", "head.cls_convs.0.0.depthwise.weight"
# A network is of the first family all of whose keys it has
FAMILY_KEYS: tuple[tuple[Family, tuple[str, ...]], ...] = (
    ("nanodet-plus", (HEAD_KEY, "fpn.reduce_layers.0.conv.weight", SEPARABLE_KEY, *SHUFFLENET_KEYS)),
    ("nanodet-t", (HEAD_KEY, POSITIONS_KEY, PAN_KEY, SEPARABLE_KEY, *SHUFFLENET_KEYS)),
    ("nanodet", (HEAD_KEY, PAN_KEY, SEPARABLE_KEY, *SHUFFLENET_KEYS)),
    ("nanodet-g", (HEAD_KEY, PAN_KEY, *CSP_KEYS)),
    ("nanodet-efficientlite", (HEAD_KEY, PAN_KEY, SEPARABLE_KEY, *LITE_KEYS)),
    ("nanodet-repvgg", (HEAD_KEY, PAN_KEY, PLAIN_KEY, *REPVGG_KEYS)),
    ("nanodet-repvgg", (HEAD_KEY, PAN_KEY, PLAIN_KEY, *MERGED_KEYS)),
)


def infer_nanodet(state: Mapping[str, Tensor]) -> NanoDetConfig | None:
    """The architecture that keys and shapes speak of; None if they are not a NanoDet's.

    Raises:
        CheckpointError: a NanoDet-t whose positions are those of no square.
    """
    found = next(((family, keys) for family, keys in FAMILY_KEYS if all(key in state for key in keys)), None)
    if found is None:
        return None
    family, keys = found
    reg_max = len(state[PROJECT_KEY]) - 1 if PROJECT_KEY in state else PUBLISHED[family].reg_max
    outputs, neck_channels = state[HEAD_KEY].shape[:2]
    # Blocks of ShuffleNetV2 and of NanoDet-g's backbone compute half of a stage's channels
    halved = 1 if family in STAGES_OF else 2
    c3, c4, c5 = (halved * len(state[key]) for key in keys[-3:])
    return NanoDetConfig(
        family=family,
        num_classes=outputs - 4 * (reg_max + 1),
        reg_max=reg_max,
        stage_channels=(c3, c4, c5),
        neck_channels=neck_channels,
        stacked_convs=count_indices(state, r"head\.cls_convs\.0\.(\d+)\."),
        **_infer_form(state, family),
    )


def _infer_form(state: Mapping[str, Tensor], family: Family) -> dict[str, Any]:
    """Those fields of NanoDetConfig that only some families have."""
    if family == "nanodet-t":
        positions = len(state[POSITIONS_KEY])
        side = math.isqrt(positions)
        if side * side != positions:
            raise CheckpointError(
                f"{POSITIONS_KEY} has {positions} positions, which are no square, and nothing says of what height and "
                f"width. Expected a NanoDet-t with a square input. {BUILT_OTHERWISE}"
            )
        return {"attention_hw": (side, side)}
    if family == "nanodet-efficientlite":
        rows = range(STAGES_OF[family][0])
        return {"stage_blocks": tuple(count_indices(state, rf"backbone\.blocks\.{row}\.(\d+)\.") for row in rows)}
    if family == "nanodet-repvgg":
        return {"stage_blocks": tuple(count_indices(state, rf"backbone\.{stage}\.(\d+)\.") for stage in STAGES)}
    return {}
