"""ShuffleNetV2 backbone (Ma et al., ECCV 2018), as NanoDet uses it: LeakyReLU, no last convolution."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from train.models.layers import leaky_relu

STAGE_REPEATS = (4, 8, 4)
BATCH_NORM_BIAS = 1e-4  # of a new backbone: RangiLyu/nanodet, nanodet/model/backbone/shufflenetv2.py


def channel_shuffle(x: Tensor) -> Tensor:
    """Interleave the two halves of the channels of ``x`` ``[N, C, H, W]``.

    The batch size is the inferred dimension, so that the exported Reshape has constant shapes.
    """
    channels, height, width = x.shape[1:]
    x = x.reshape(-1, 2, channels // 2, height, width)
    return x.transpose(1, 2).reshape(-1, channels, height, width)


def _depthwise(channels: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False)


def _pointwise(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 1, bias=False)


class ShuffleBlock(nn.Module):
    """One ShuffleNetV2 unit: stride 1 transforms half of the channels, stride 2 transforms two copies of all."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        half = out_channels // 2
        if stride == 1 and in_channels != out_channels:
            raise ValueError(f"a stride-1 unit keeps its channels: got {in_channels} -> {out_channels}")
        self.stride = stride
        self.branch1 = nn.Sequential()
        if stride > 1:
            self.branch1 = nn.Sequential(
                _depthwise(in_channels, stride),
                nn.BatchNorm2d(in_channels),
                _pointwise(in_channels, half),
                nn.BatchNorm2d(half),
                leaky_relu(),
            )
        self.branch2 = nn.Sequential(
            _pointwise(in_channels if stride > 1 else half, half),
            nn.BatchNorm2d(half),
            leaky_relu(),
            _depthwise(half, stride),
            nn.BatchNorm2d(half),
            _pointwise(half, half),
            nn.BatchNorm2d(half),
            leaky_relu(),
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == 1:
            kept, changed = x.chunk(2, dim=1)
            return channel_shuffle(torch.cat((kept, self.branch2(changed)), dim=1))
        return channel_shuffle(torch.cat((self.branch1(x), self.branch2(x)), dim=1))


class ShuffleNetV2(nn.Module):
    """Three feature maps at strides 8, 16 and 32.

    Args:
        stage_channels: output channels of stages 2, 3 and 4; ``(116, 232, 464)`` is the 1.0x width.
        stem_channels: channels after the first convolution.
    """

    def __init__(self, stage_channels: tuple[int, int, int], stem_channels: int = 24) -> None:
        super().__init__()
        self.out_channels = stage_channels
        self.conv1 = nn.Sequential(
            nn.Conv2d(3, stem_channels, 3, 2, 1, bias=False), nn.BatchNorm2d(stem_channels), leaky_relu()
        )
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        stage_inputs = (stem_channels, *stage_channels[:-1])
        self.stage2, self.stage3, self.stage4 = (
            nn.Sequential(
                ShuffleBlock(inputs, outputs, stride=2),
                *(ShuffleBlock(outputs, outputs, stride=1) for _ in range(repeats - 1)),
            )
            for inputs, outputs, repeats in zip(stage_inputs, stage_channels, STAGE_REPEATS, strict=True)
        )

    def init_weights(self) -> None:
        """Random weights to train from, as nanodet's."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=1 / module.weight.shape[1])
            if isinstance(module, nn.BatchNorm2d):
                nn.init.constant_(module.bias, BATCH_NORM_BIAS)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``x`` float ``[N, 3, H, W]``, H and W multiples of 32 -> maps at strides 8, 16, 32."""
        x = self.maxpool(self.conv1(x))
        c3 = self.stage2(x)
        c4 = self.stage3(c3)
        return c3, c4, self.stage4(c4)
