"""Checkpoints of GFL, GFLv2 and ATSS: mmdetection 2.x and 3.x, implus/GFocalV2, and our own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from gfl_edge.errors import CheckpointError
from train.models.deform_conv import KERNEL_POINTS, DeformKind
from train.models.gfl import GFLConfig
from train.models.resnet import BASIC_DEPTHS, STAGE_BLOCKS
from train.models.traits import Quality
from train.weights.keys import count_indices
from train.weights.reading import StateDict

# Mean and std, which TRAITS states; and the network that SAPD only trains with
UNUSED_KEYS = re.compile(r"data_preprocessor\.|meta_selection\.")
SELECTION_KEY = "meta_selection.levels.weight"
PROJECT_KEY = "bbox_head.integral.project"  # the constant 0, 1, ... reg_max
CENTERNESS_KEY = "bbox_head.atss_centerness.weight"
NECK_KEY = "neck.lateral_convs.0.conv.weight"
NEEDED_KEYS = {
    "gfl": ("bbox_head.gfl_cls.weight", "bbox_head.gfl_reg.weight", NECK_KEY),
    "atss": ("bbox_head.atss_cls.weight", "bbox_head.atss_reg.weight", CENTERNESS_KEY, NECK_KEY),
}
OFFSET_PLANES: dict[int, DeformKind] = {2 * KERNEL_POINTS: "v1", 3 * KERNEL_POINTS: "v2"}


def rename_old_keys(state: Mapping[str, Tensor]) -> StateDict:
    """mmdetection 1.x kept the offsets of a deformable ``conv2`` in ``conv2_offset`` beside it."""
    return {key.replace(".conv2_offset.", ".conv2.conv_offset."): value for key, value in state.items()}


def infer_gfl(state: Mapping[str, Tensor]) -> GFLConfig | None:
    """The architecture that keys and shapes speak of; None if they are neither a GFL's nor an ATSS's.

    Raises:
        CheckpointError: one whose backbone is another than ours, or whose sizes do not fit together.
    """
    method = next((name for name, keys in NEEDED_KEYS.items() if all(key in state for key in keys)), None)
    if method is None:
        return None
    levels = count_indices(state, r"bbox_head\.scales\.(\d+)\.scale$")
    try:
        return GFLConfig(
            **(_infer_atss(state) if method == "atss" else _infer_edges(state)),
            **_infer_backbone(state),
            neck="fpn" if "neck.fpn_convs.0.conv.weight" in state else "pan",
            neck_channels=len(state[NECK_KEY]),
            head_channels=state[NEEDED_KEYS[method][0]].shape[1],
            stacked_convs=count_indices(state, r"bbox_head\.cls_convs\.(\d+)\."),
            num_classes=len(state[NEEDED_KEYS[method][0]]),
            strides=tuple(8 << level for level in range(levels)),
        )
    except ValueError as error:
        raise CheckpointError(str(error)) from error


def _infer_edges(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Those fields that describe what is predicted of edges where that is no delta, and the family."""
    bins = len(state["bbox_head.gfl_reg.weight"]) // 4
    return {
        "family": _infer_family(state),
        "reg_max": bins - 1 if bins > 1 else GFLConfig.reg_max,
        "quality": _infer_quality(state),
        "regression": "distribution" if bins > 1 else "dirac",
    }


def _infer_family(state: Mapping[str, Tensor]) -> Literal["gfl", "gflv2", "sapd"]:
    if SELECTION_KEY in state:  # what else tells SAPD from a GFL of Dirac deltas is not in the keys
        return "sapd"
    return "gflv2" if "bbox_head.reg_conf.0.weight" in state else "gfl"


def _infer_quality(state: Mapping[str, Tensor]) -> Quality:
    if SELECTION_KEY in state:
        return "none"
    return "centerness" if CENTERNESS_KEY in state else "joint"


def _infer_atss(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The same of an ATSS."""
    anchors = len(state["bbox_head.atss_reg.weight"]) // 4
    if anchors != 1:
        raise CheckpointError(f"an ATSS of {anchors} anchors per cell: expected one, as in mmdetection's configs/atss")
    return {"family": "atss", "quality": "centerness", "regression": "delta"}


def _infer_backbone(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Those fields of GFLConfig that describe the backbone."""
    if "backbone._conv_stem.weight" in state:
        return {"backbone": "efficientnet-lite0"}
    blocks = tuple(count_indices(state, rf"backbone\.layer{stage}\.(\d+)\.") for stage in (1, 2, 3, 4))
    basic = "backbone.layer1.0.conv3.weight" not in state
    depths = [depth for depth, known in STAGE_BLOCKS.items() if known == blocks and (depth in BASIC_DEPTHS) == basic]
    if not depths or "backbone.conv1.weight" not in state:
        raise CheckpointError(
            f"a GFL with an unknown backbone of {', '.join(map(str, blocks))} blocks: expected ResNet or ResNeXt of "
            f"depth {', '.join(map(str, STAGE_BLOCKS))} with a 7x7 stem, or EfficientNet-Lite0"
        )
    width, per_group = state["backbone.layer1.0.conv2.weight"].shape[:2]
    groups = 1 if basic else width // per_group
    dcn, dcn_stages = _infer_deformable(state)
    return {
        "depth": depths[0],
        "base_channels": len(state["backbone.conv1.weight"]),
        "groups": groups,
        "base_width": per_group if groups > 1 else GFLConfig.base_width,
        "dcn": dcn,
        "dcn_stages": dcn_stages,
    }


def _infer_deformable(state: Mapping[str, Tensor]) -> tuple[DeformKind | None, tuple[bool, ...]]:
    keys = [f"backbone.layer{stage}.0.conv2.conv_offset.weight" for stage in (1, 2, 3, 4)]
    planes = {len(state[key]) for key in keys if key in state}
    if not planes:
        return None, (False, False, False, False)
    if len(planes) > 1 or not planes <= OFFSET_PLANES.keys():
        raise CheckpointError(
            f"deformable convolutions with {sorted(planes)} offset planes: expected {KERNEL_POINTS * 2} (DCNv1) or "
            f"{KERNEL_POINTS * 3} (DCNv2), one group of offsets, the same in all stages"
        )
    return OFFSET_PLANES[planes.pop()], tuple(key in state for key in keys)
