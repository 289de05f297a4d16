"""The backbone of NanoDet-g: plain 3x3 convolutions, which GPUs and INT8 like (RangiLyu/nanodet: custom_csp.py).

Attribute names are those of nanodet's modules, so that its checkpoints load without renaming.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from train.models.layers import ConvNormAct

RESIDUALS = (1, 2, 2, 3)  # blocks in the stages at strides 4, 8, 16 and 32
WIDENING = 4  # channels of the map at stride 8 in those of the stem, at stride 2


class TinyResBlock(nn.Module):
    """Two convolutions to half of the channels each, the second one's output before the first one's."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.in_conv = ConvNormAct(channels, channels // 2, 3)
        self.mid_conv = ConvNormAct(channels // 2, channels // 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.in_conv(x)
        return torch.cat((self.mid_conv(x), x), dim=1)


class CspBlock(nn.Module):
    """A stage after Cross Stage Partial networks (Wang et al., CVPRW 2020); it doubles the channels."""

    def __init__(self, channels: int, residuals: int, stride: int) -> None:
        super().__init__()
        self.in_conv = ConvNormAct(channels, channels, 3, stride)
        self.res_blocks = nn.Sequential(*(TinyResBlock(channels) for _ in range(residuals)))
        self.res_out_conv = ConvNormAct(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.in_conv(x)
        return torch.cat((self.res_out_conv(self.res_blocks(x)), x), dim=1)


class CspNet(nn.Module):
    """Three feature maps at strides 8, 16 and 32.

    Args:
        stage_channels: of the maps, each twice the one before; ``(128, 256, 512)`` is the published width.
    """

    def __init__(self, stage_channels: tuple[int, int, int]) -> None:
        super().__init__()
        self.out_channels = stage_channels
        stem = stage_channels[0] // WIDENING
        blocks = [
            CspBlock(stem << level, residuals, stride=1 if level == 0 else 2)
            for level, residuals in enumerate(RESIDUALS)
        ]
        self.stages = nn.ModuleList([ConvNormAct(3, stem, 3, 2), nn.MaxPool2d(3, 2, 1), *blocks])

    def init_weights(self) -> None:
        """Random weights to train from, as nanodet's."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="leaky_relu")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``x`` float ``[N, 3, H, W]``, H and W multiples of 32 -> maps at strides 8, 16, 32."""
        outputs = []
        for stage in self.stages:
            x = stage(x)
            outputs.append(x)
        c3, c4, c5 = outputs[-3:]
        return c3, c4, c5
