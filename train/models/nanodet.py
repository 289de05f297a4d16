"""The NanoDets: a light backbone, a light neck and the light GFL head.

Sources: RangiLyu/nanodet, nanodet/model/head/nanodet_head.py (``share_cls_reg``) and nanodet_plus_head.py. At inference
the heads differ only in the convolutions of their towers and in strides. NanoDet-Plus trains with an auxiliary head
beside its own (nanodet/model/arch/nanodet_plus.py, head/simple_conv_head.py), which is the head of GFL.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from train.models.csp_net import WIDENING, CspNet
from train.models.detector import Detector
from train.models.efficientnet_lite import LITE_SIZES, ROWS, EfficientNetLite
from train.models.gfl_head import INIT_STD, PRIOR_BIAS, GFLHead, HeadLayout
from train.models.ghost_pan import GhostPAN
from train.models.layers import LEAKY_SLOPE, ConvNormAct, DepthwiseSeparable, leaky_relu, relu, relu6
from train.models.pan import PAN
from train.models.repvgg import REPVGG_SIZES, STAGES, RepVgg
from train.models.shufflenet_v2 import ShuffleNetV2
from train.models.tan import HEADS, TAN
from train.models.traits import Family
from train.structures import Outputs

NANODET_FAMILIES: tuple[Family, ...] = (
    "nanodet",
    "nanodet-g",
    "nanodet-t",
    "nanodet-efficientlite",
    "nanodet-repvgg",
    "nanodet-plus",
)
PLAIN_TOWERS: tuple[Family, ...] = ("nanodet-g", "nanodet-repvgg")  # heads of plain convolutions
ACTIVATIONS = {"nanodet-efficientlite": relu6, "nanodet-repvgg": relu}  # of backbone and head, where not leaky


@dataclass(frozen=True)
class NanoDetConfig:
    """What a NanoDet network is made of; everything can be read off a checkpoint's keys and shapes.

    The defaults are those of the published NanoDet-m and NanoDet-Plus-m; :data:`PUBLISHED` has one of each family, the
    files in ``train/configs/models`` have all.

    Attributes:
        family: which backbone, neck and head.
        num_classes: number of classes.
        reg_max: the distribution of an edge has ``reg_max + 1`` bins.
        stage_channels: of the backbone's maps at strides 8, 16 and 32.
        neck_channels: of every map of the neck.
        stacked_convs: convolutions of the head per level.
        stage_blocks: blocks per stage of EfficientNet-Lite and RepVGG; empty for other backbones, which have one form.
        attention_hw: height and width of the map on which NanoDet-t attends, a 16th of its input's; None for others.

    Raises:
        ValueError: fields that do not fit together.
    """

    family: Family
    num_classes: int = 80
    reg_max: int = 7  # the distribution has reg_max + 1 bins
    stage_channels: tuple[int, int, int] = (116, 232, 464)  # ShuffleNetV2 1.0x
    neck_channels: int = 96
    stacked_convs: int = 2
    stage_blocks: tuple[int, ...] = ()
    attention_hw: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.family not in NANODET_FAMILIES:
            raise ValueError(f"family {self.family!r}: expected one of {', '.join(NANODET_FAMILIES)}")
        first = max(1, self.stage_channels[0] // (2 * WIDENING)) * 2 * WIDENING
        doubled = (first, 2 * first, 4 * first)
        if self.family == "nanodet-g" and self.stage_channels != doubled:
            raise ValueError(
                f"stage_channels {list(self.stage_channels)}: those of nanodet-g double from stage to stage, from a "
                f"multiple of {2 * WIDENING} on, such as {list(doubled)}. Take published = 'nanodet-g-416'"
            )
        if self.num_classes < 1 or self.reg_max < 1:
            raise ValueError(f"num_classes {self.num_classes}, reg_max {self.reg_max}: expected 1 or more")
        self._check_blocks()
        self._check_attention()

    def _check_blocks(self) -> None:
        stages, example = STAGES_OF.get(self.family, (0, ()))
        if len(self.stage_blocks) != stages or any(count < 1 for count in self.stage_blocks):
            expected = f"{stages} numbers from 1 on, such as {list(example)}" if stages else "none"
            raise ValueError(
                f"stage_blocks {list(self.stage_blocks)}: expected {expected} for {self.family}. "
                "Take published = the name of such a model, of: gfl-edge models"
            )

    def _check_attention(self) -> None:
        if (self.attention_hw is None) == (self.family == "nanodet-t"):
            expected = "the input's height and width / 16" if self.family == "nanodet-t" else "none"
            raise ValueError(f"attention_hw {self.attention_hw}: expected {expected} for {self.family}")
        if self.attention_hw is not None and (min(self.attention_hw) < 1 or self.neck_channels % HEADS):
            raise ValueError(
                f"attention_hw {list(self.attention_hw)}, neck_channels {self.neck_channels}: expected sides from 1 on "
                f"and a multiple of {HEADS} channels"
            )

    @property
    def regression(self) -> Literal["distribution"]:
        """How box edges are predicted."""
        return "distribution"

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels of the input per cell of each output map."""
        return (8, 16, 32, 64) if self.family == "nanodet-plus" else (8, 16, 32)

    def tower_conv(self) -> nn.Module:
        """One convolution of the head, which keeps the channels: plain, or depthwise and pointwise."""
        channels, activation = self.neck_channels, ACTIVATIONS.get(self.family, leaky_relu)
        if self.family in PLAIN_TOWERS:
            return ConvNormAct(channels, channels, 3, activation=activation)
        kernel_size = 5 if self.family == "nanodet-plus" else 3
        return DepthwiseSeparable(channels, channels, kernel_size, activation=activation)

    def backbone(self) -> Backbone:
        """What gives the three maps, with PyTorch's random weights."""
        if self.family == "nanodet-efficientlite":
            return EfficientNetLite(self.stage_channels, self.stage_blocks)
        if self.family == "nanodet-repvgg":
            return RepVgg(self.stage_channels, self.stage_blocks)
        return (CspNet if self.family == "nanodet-g" else ShuffleNetV2)(self.stage_channels)

    def neck(self) -> PAN | TAN | GhostPAN:
        """What gives the head's maps, with PyTorch's random weights."""
        if self.attention_hw is not None:
            return TAN(self.stage_channels, self.neck_channels, self.attention_hw)
        return (GhostPAN if self.family == "nanodet-plus" else PAN)(self.stage_channels, self.neck_channels)


Backbone = ShuffleNetV2 | CspNet | EfficientNetLite | RepVgg

# How many stages have a number of blocks of their own, and those of the smallest published network
STAGES_OF: dict[Family, tuple[int, tuple[int, ...]]] = {
    "nanodet-efficientlite": (len(ROWS), LITE_SIZES["efficientnet_lite0"].stage_blocks),
    "nanodet-repvgg": (len(STAGES), REPVGG_SIZES["A0"].stage_blocks),
}


NANODET_G = NanoDetConfig(
    "nanodet-g", reg_max=10, stage_channels=(128, 256, 512), neck_channels=128, stacked_convs=1
)  # RangiLyu/nanodet, config/legacy_v0.x_configs/nanodet-g.yml

# One published network of each family; the files in train/configs/models have all
PUBLISHED: dict[Family, NanoDetConfig] = {
    "nanodet": NanoDetConfig("nanodet"),
    "nanodet-g": NANODET_G,
    "nanodet-t": NanoDetConfig("nanodet-t", neck_channels=128, attention_hw=(20, 20)),
    "nanodet-efficientlite": NanoDetConfig(
        "nanodet-efficientlite",
        stage_channels=(40, 112, 320),
        stage_blocks=LITE_SIZES["efficientnet_lite0"].stage_blocks,
    ),
    "nanodet-repvgg": NanoDetConfig(
        "nanodet-repvgg",
        reg_max=10,
        stage_channels=(96, 192, 512),
        neck_channels=128,
        stage_blocks=REPVGG_SIZES["A0"].stage_blocks,
    ),
    "nanodet-plus": NanoDetConfig("nanodet-plus"),
}


class NanoDetHead(nn.Module):
    """One tower per level; its last 1x1 convolution gives class logits and the four edge distributions together."""

    def __init__(self, config: NanoDetConfig) -> None:
        super().__init__()
        self.num_classes = config.num_classes
        outputs = config.num_classes + 4 * (config.reg_max + 1)
        self.cls_convs = nn.ModuleList(
            nn.ModuleList(config.tower_conv() for _ in range(config.stacked_convs)) for _ in config.strides
        )
        self.gfl_cls = nn.ModuleList(nn.Conv2d(config.neck_channels, outputs, 1) for _ in config.strides)

    def init_weights(self) -> None:
        """For training: small weights, and every class starts with the score 0.01."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=INIT_STD)
        for predict in self.gfl_cls:
            assert isinstance(predict, nn.Conv2d)
            assert predict.bias is not None
            nn.init.zeros_(predict.bias)
            nn.init.constant_(predict.bias[: self.num_classes], PRIOR_BIAS)

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """One map ``[N, C, H_i, W_i]`` per level -> class logits and distribution logits, one map per level each."""
        cls_logits, reg_logits = [], []
        for x, tower, predict in zip(features, self.cls_convs, self.gfl_cls, strict=True):
            assert isinstance(tower, nn.ModuleList)
            for conv in tower:
                x = conv(x)
            if isinstance(predict, nn.ModuleList):
                cls, reg = (conv(x) for conv in predict)
            else:
                prediction = predict(x)
                cls, reg = prediction[:, : self.num_classes], prediction[:, self.num_classes :]
            cls_logits.append(cls)
            reg_logits.append(reg)
        return cls_logits, reg_logits

    def separate(self) -> None:
        """Predict classes and edges by convolutions of their own, in place and to the same effect.

        For inference: a convolution has its outputs where they are needed, and cutting its common map in two took
        OpenVINO 5 % of NanoDet-Plus-m-416's time.
        """
        for level, predict in enumerate(self.gfl_cls):
            assert isinstance(predict, nn.Conv2d)
            assert predict.bias is not None
            parts = nn.ModuleList()
            for rows in (slice(None, self.num_classes), slice(self.num_classes, None)):
                weight, bias = predict.weight.detach()[rows], predict.bias.detach()[rows]
                conv = nn.Conv2d(predict.in_channels, len(bias), 1, device=bias.device, dtype=bias.dtype)
                conv.weight, conv.bias = nn.Parameter(weight.clone()), nn.Parameter(bias.clone())
                parts.append(conv)
            self.gfl_cls[level] = parts


class NanoDet(Detector):
    """A detector of :data:`NANODET_FAMILIES`; normalized BGR in. Keys: ``backbone``, ``fpn``, ``head``.

    Args:
        config: what it is made of.
        auxiliary: add the auxiliary head that NanoDet-Plus trains with (keys ``aux_fpn``, ``aux_head``); ``forward``
            does not use it.

    Raises:
        ValueError: an auxiliary head for another one than NanoDet-Plus.
    """

    backbone: Backbone

    def __init__(self, config: NanoDetConfig, auxiliary: bool = False) -> None:
        super().__init__()
        if auxiliary and config.family != "nanodet-plus":
            raise ValueError(f"{config.family} has no auxiliary head; take the family nanodet-plus")
        self.config: NanoDetConfig = config
        self.backbone = config.backbone()
        self.fpn = config.neck()
        self.head = NanoDetHead(config)
        self.init_weights()
        self.aux_fpn: nn.Module | None = None
        self.aux_head: GFLHead | None = None
        if auxiliary:
            self.aux_fpn = copy.deepcopy(self.fpn)
            channels = 2 * config.neck_channels  # the detector's maps and its own, concatenated
            self.aux_head = GFLHead(
                HeadLayout(
                    config.num_classes, channels, channels, len(config.strides), config.reg_max, leaky_slope=LEAKY_SLOPE
                )
            )
            self.aux_head.init_weights()

    def init_weights(self) -> None:
        """Random weights to train from, as nanodet's."""
        self.backbone.init_weights()
        if isinstance(self.fpn, TAN):
            self.fpn.init_weights()
        elif isinstance(self.fpn, PAN):
            for conv in (module for module in self.fpn.modules() if isinstance(module, nn.Conv2d)):
                nn.init.xavier_uniform_(conv.weight)
                assert conv.bias is not None
                nn.init.zeros_(conv.bias)
        else:  # GhostPAN's ghost modules keep PyTorch's initialization
            blocks = [module for module in self.fpn.modules() if isinstance(module, (ConvNormAct, DepthwiseSeparable))]
            for conv in (module for block in blocks for module in block.modules() if isinstance(module, nn.Conv2d)):
                nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="leaky_relu")
        self.head.init_weights()

    def backbone_stages(self) -> list[list[nn.Module]]:
        backbone = self.backbone
        if isinstance(backbone, (EfficientNetLite, RepVgg)):
            return backbone.stages()
        if isinstance(backbone, CspNet):
            return [[stage] for stage in backbone.stages if not isinstance(stage, nn.MaxPool2d)]
        return [[backbone.conv1], [backbone.stage2], [backbone.stage3], [backbone.stage4]]

    def forward(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        return self.head(self.fpn(self.backbone(images)))

    def forward_train(self, images: Tensor, detach_auxiliary: bool = False) -> Outputs:
        """Normalized float ``[N, 3, H, W]`` -> logits of all levels, the auxiliary head's under ``auxiliary``.

        Args:
            images: see the class.
            detach_auxiliary: keep the auxiliary head's gradients out of backbone and neck, as nanodet does from its
                ``detach_epoch`` on.
        """
        features = self.backbone(images)
        maps = self.fpn(features)
        cls_logits, reg_logits = self.head(maps)
        if self.aux_fpn is None or self.aux_head is None:
            return Outputs(cls_logits, reg_logits)
        if detach_auxiliary:
            features, maps = ([x.detach() for x in group] for group in (features, maps))
        pairs = zip(maps, self.aux_fpn(features), strict=True)
        auxiliary = self.aux_head([torch.cat(pair, dim=1) for pair in pairs])
        return Outputs(cls_logits, reg_logits, auxiliary=auxiliary)
