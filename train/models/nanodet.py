"""NanoDet-m and NanoDet-Plus-m: ShuffleNetV2, a PAN and the light GFL head.

Sources: RangiLyu/nanodet, nanodet/model/head/nanodet_head.py (``share_cls_reg``) and nanodet_plus_head.py. At inference
the two heads differ in kernel size and strides alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from train.models.ghost_pan import GhostPAN
from train.models.layers import DepthwiseSeparable
from train.models.pan import PAN
from train.models.shufflenet_v2 import ShuffleNetV2
from train.models.traits import Family


@dataclass(frozen=True)
class NanoDetConfig:
    """What a NanoDet network is made of; everything can be read off a checkpoint's keys and shapes."""

    family: Family
    num_classes: int = 80
    reg_max: int = 7  # the distribution has reg_max + 1 bins
    stage_channels: tuple[int, int, int] = (116, 232, 464)  # ShuffleNetV2 1.0x
    neck_channels: int = 96
    stacked_convs: int = 2

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels of the input per cell of each output map."""
        return (8, 16, 32) if self.family == "nanodet" else (8, 16, 32, 64)

    @property
    def head_kernel_size(self) -> int:
        return 3 if self.family == "nanodet" else 5


class NanoDetHead(nn.Module):
    """One tower per level; its last 1x1 convolution gives class logits and the four edge distributions together."""

    def __init__(self, config: NanoDetConfig) -> None:
        super().__init__()
        self.num_classes = config.num_classes
        channels, kernel_size = config.neck_channels, config.head_kernel_size
        outputs = config.num_classes + 4 * (config.reg_max + 1)
        self.cls_convs = nn.ModuleList(
            nn.ModuleList(DepthwiseSeparable(channels, channels, kernel_size) for _ in range(config.stacked_convs))
            for _ in config.strides
        )
        self.gfl_cls = nn.ModuleList(nn.Conv2d(channels, outputs, 1) for _ in config.strides)

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """One map ``[N, C, H_i, W_i]`` per level -> class logits and distribution logits, one map per level each."""
        cls_logits, reg_logits = [], []
        for x, tower, predict in zip(features, self.cls_convs, self.gfl_cls, strict=True):
            assert isinstance(tower, nn.ModuleList)
            for conv in tower:
                x = conv(x)
            prediction = predict(x)
            cls_logits.append(prediction[:, : self.num_classes])
            reg_logits.append(prediction[:, self.num_classes :])
        return cls_logits, reg_logits


class NanoDet(nn.Module):
    """A NanoDet or NanoDet-Plus detector without decode.

    ``forward`` takes float32 ``[N, 3, H, W]``, normalised BGR with H and W multiples of 32, and returns
    ``(cls_logits, reg_logits)``: lists with one map per stride, ``[N, num_classes, H_i, W_i]`` and
    ``[N, 4 * (reg_max + 1), H_i, W_i]`` (left, top, right, bottom; each ``reg_max + 1`` bins).
    """

    def __init__(self, config: NanoDetConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = ShuffleNetV2(config.stage_channels)
        neck = PAN if config.family == "nanodet" else GhostPAN
        self.fpn = neck(config.stage_channels, config.neck_channels)
        self.head = NanoDetHead(config)

    def forward(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        return self.head(self.fpn(self.backbone(images)))
