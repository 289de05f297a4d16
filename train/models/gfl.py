"""GFL, GFLv2, ATSS and SAPD: a backbone, a feature pyramid and one head that all levels share.

Sources: mmdetection 3.3.0 (configs/gfl, configs/atss, mmdet/models/dense_heads), implus/GFocalV2, and Zhu et al.,
Soft Anchor-Point Object Detection, ECCV 2020. SAPD has the towers of the others, with their group norms and the learned
scale of each level, so that what it is compared by is the training.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from torch import Tensor, nn

from train.models.deform_conv import DeformKind
from train.models.detector import Detector
from train.models.efficientnet_lite import EfficientNetLite0
from train.models.fpn import FPN
from train.models.gfl_head import GFLHead, HeadLayout, HeadQuality, joint_logits
from train.models.meta_selection import MetaSelection
from train.models.pan import PAN
from train.models.resnet import ResNet, ResNetLayout
from train.models.traits import Quality, Regression
from train.structures import LevelSelection, Outputs

BackboneName = Literal["resnet", "efficientnet-lite0"]
NeckName = Literal["fpn", "pan"]

BACKBONE_STRIDES = (8, 16, 32)  # of c3, c4, c5, which the necks take


@dataclass(frozen=True)
class GFLConfig:
    """What a GFL network is made of. The defaults are mmdetection's gfl_r50_fpn.

    Attributes:
        family: "gfl", "gflv2" for the head whose quality is predicted from the distributions, "atss" or "sapd".
        backbone: "resnet" (also ResNeXt) or "efficientnet-lite0", which the next six fields do not concern.
        depth: 18, 34, 50 or 101.
        base_channels: of the stem.
        groups: of a ResNeXt's 3x3 convolutions, else 1.
        base_width: channels per group in the first stage of a ResNeXt.
        dcn: kind of deformable convolution, or None.
        dcn_stages: whether the blocks of c2, c3, c4, c5 have it.
        neck: "fpn", or "pan" for NanoDet's neck without convolutions, which has only strides 8, 16, 32.
        neck_channels: of the pyramid's maps.
        head_channels: of the head's towers.
        stacked_convs: convolutions per tower.
        num_groups: of the towers' group norms.
        num_classes: number of classes.
        reg_max: the distribution of an edge has ``reg_max + 1`` bins; of no concern to other regressions.
        strides: pixels of the input per cell of each output map; 8, 16, 32 and doublings.
        quality: "joint", or "centerness" for ATSS and the baseline of the paper, or "none" for neither.
        regression: "distribution", "dirac" for the baseline of the paper with one distance per edge, or "delta" for
            ATSS, which predicts how a box differs from an anchor.

    Raises:
        ValueError: fields that do not fit together.
    """

    family: Literal["gfl", "gflv2", "atss", "sapd"] = "gfl"
    backbone: BackboneName = "resnet"
    depth: int = 50
    base_channels: int = 64
    groups: int = 1
    base_width: int = 4
    dcn: DeformKind | None = None
    dcn_stages: tuple[bool, bool, bool, bool] = (False, False, False, False)
    neck: NeckName = "fpn"
    neck_channels: int = 256
    head_channels: int = 256
    stacked_convs: int = 4
    num_groups: int = 32
    num_classes: int = 80
    reg_max: int = 16
    strides: tuple[int, ...] = (8, 16, 32, 64, 128)
    quality: Quality = "joint"
    regression: Regression = "distribution"

    def __post_init__(self) -> None:
        if self.family == "gflv2" and (self.quality != "joint" or self.regression != "distribution"):
            raise ValueError(
                "gflv2 predicts its quality from distributions: quality 'joint', regression 'distribution'"
            )
        if self.family == "sapd" and (self.quality != "none" or self.regression != "dirac"):
            raise ValueError("sapd predicts scores and distances alone: quality 'none', regression 'dirac'")
        if self.family == "atss" and (self.quality != "centerness" or self.regression != "delta"):
            raise ValueError("atss is trained with quality 'centerness', regression 'delta': give both")
        if self.family != "atss" and self.regression == "delta":
            raise ValueError(f"{self.family} predicts no differences from anchors: regression 'delta' is family 'atss'")
        doublings = tuple(8 << level for level in range(len(self.strides)))
        if len(self.strides) < len(BACKBONE_STRIDES) or self.strides != doublings:
            raise ValueError(f"strides {self.strides}: expected 8, 16, 32 and doublings")
        if self.neck == "pan" and self.strides != BACKBONE_STRIDES:
            raise ValueError(f"strides {self.strides}: the pan neck has {BACKBONE_STRIDES}; take the fpn neck for more")
        if self.head_channels % self.num_groups:
            raise ValueError(f"head_channels {self.head_channels} is no multiple of num_groups {self.num_groups}")
        if self.num_classes < 1 or self.reg_max < 1:
            raise ValueError(f"num_classes {self.num_classes}, reg_max {self.reg_max}: expected 1 or more")
        if self.backbone == "resnet":
            _ = self.resnet  # for its own checks

    @property
    def resnet(self) -> ResNetLayout:
        """The backbone, where it is a ResNet."""
        return ResNetLayout(self.depth, self.base_channels, self.groups, self.base_width, self.dcn, self.dcn_stages)

    @property
    def head(self) -> HeadLayout:
        """The head."""
        quality: HeadQuality = "guided" if self.family == "gflv2" else self.quality
        return HeadLayout(
            self.num_classes,
            self.neck_channels,
            self.head_channels,
            len(self.strides),
            self.reg_max,
            self.stacked_convs,
            self.num_groups,
            quality,
            self.regression,
            rectified=self.family == "sapd",
        )


class GFL(Detector):
    """A GFL, GFLv2, ATSS or SAPD detector; normalized RGB in. Keys start with ``backbone``, ``neck``, ``bbox_head``.

    Unless ``regression="distribution"`` the edge maps are ``[N, 4, H_i, W_i]``, distances in strides.

    Args:
        config: what it is made of.
        meta_selection: add the network that SAPD trains with, key ``meta_selection``.
    """

    backbone: ResNet | EfficientNetLite0

    def __init__(self, config: GFLConfig, meta_selection: bool = False) -> None:
        super().__init__()
        self.config: GFLConfig = config
        self.backbone = EfficientNetLite0() if config.backbone == "efficientnet-lite0" else ResNet(config.resnet)
        inputs = self.backbone.out_channels[-len(BACKBONE_STRIDES) :]
        self.neck: nn.Module = (
            PAN(inputs, config.neck_channels)
            if config.neck == "pan"
            else FPN(inputs, config.neck_channels, len(config.strides))
        )
        self.bbox_head = GFLHead(config.head)
        self.meta_selection = MetaSelection(config.strides, config.neck_channels) if meta_selection else None
        self.init_weights()

    def init_weights(self) -> None:
        """Random weights to train from, as mmdetection's."""
        self.backbone.init_weights()
        self.bbox_head.init_weights()
        for module in self.neck.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def backbone_stages(self) -> list[list[nn.Module]]:
        return self.backbone.stages()

    def forward_train(self, images: Tensor) -> Outputs:
        features = self.neck(self.backbone(images)[-len(BACKBONE_STRIDES) :])
        outputs: Outputs = self.bbox_head(features)
        if self.meta_selection is None:
            return outputs
        return replace(outputs, selection=LevelSelection(partial(self.meta_selection, features)))

    def forward(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        outputs = self.forward_train(images)
        if outputs.centerness is None:
            return outputs.cls_logits, outputs.reg_logits
        levels = zip(outputs.cls_logits, outputs.centerness, strict=True)
        return [joint_logits(cls_logits, centerness) for cls_logits, centerness in levels], outputs.reg_logits
