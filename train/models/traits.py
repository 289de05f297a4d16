"""How each family of detectors was trained, which its checkpoints do not say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gfl_edge.spec import ResizeRule

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

# ImageNet statistics in BGR order, gray levels
MEAN_BGR = (103.53, 116.28, 123.675)
STD_BGR = (57.375, 57.12, 58.395)
# EfficientNet-Lite saw (gray level - 127) / 128; tensorflow/tpu: efficientnet/lite/efficientnet_lite_builder.py
LITE_MEAN, LITE_STD = 127.0, 128.0


@dataclass(frozen=True)
class FamilyTraits:
    """Input convention and point grid of a family.

    Attributes:
        default_hw: (height, width) in pixels.
        resize: how frames are brought to that size.
        point_offset: cell i of a level lies at ``(i + point_offset) * stride``.
        channel_order: in which the network takes its three channels.
        mean_bgr, std_bgr: gray levels.
        threshold_power: a detection's score has to exceed the threshold of the evaluation to this power. 2 where that
            is a threshold of the class score, which is then multiplied by the centerness: the product exceeds the
            square wherever both exceed the threshold.
    """

    default_hw: tuple[int, int]
    resize: ResizeRule
    point_offset: float
    channel_order: Literal["bgr", "rgb"]
    mean_bgr: tuple[float, float, float] = MEAN_BGR
    std_bgr: tuple[float, float, float] = STD_BGR
    threshold_power: int = 1


TRAITS: dict[Family, FamilyTraits] = {
    # RangiLyu/nanodet, nanodet/model/head/gfl_head.py (get_single_level_center_point) and nanodet_plus_head.py
    "nanodet": FamilyTraits((320, 320), "letterbox", 0.5, "bgr"),
    "nanodet-g": FamilyTraits((416, 416), "letterbox", 0.5, "bgr"),
    "nanodet-t": FamilyTraits((320, 320), "letterbox", 0.5, "bgr"),
    "nanodet-efficientlite": FamilyTraits(
        (320, 320), "letterbox", 0.5, "bgr", (LITE_MEAN, LITE_MEAN, LITE_MEAN), (LITE_STD, LITE_STD, LITE_STD)
    ),
    "nanodet-repvgg": FamilyTraits((416, 416), "letterbox", 0.5, "bgr"),
    "nanodet-plus": FamilyTraits((416, 416), "stretch", 0.0, "bgr"),
    # mmdetection 3.3.0, configs/gfl: AnchorGenerator with center_offset 0, data_preprocessor with bgr_to_rgb
    "gfl": FamilyTraits((800, 1344), "fit", 0.0, "rgb"),
    "gflv2": FamilyTraits((800, 1344), "fit", 0.0, "rgb"),
    # configs/atss, and base_dense_head.py (_predict_by_feat_single), which filters before it multiplies
    "atss": FamilyTraits((800, 1344), "fit", 0.0, "rgb", threshold_power=2),
    # Zhu et al., ECCV 2020, section 3.1
    "sapd": FamilyTraits((800, 1344), "fit", 0.5, "rgb"),
}
