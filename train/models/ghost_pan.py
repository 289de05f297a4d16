"""GhostPAN, the neck of NanoDet-Plus (RangiLyu/nanodet: nanodet/model/fpn/ghost_pan.py)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from train.models.layers import ConvNormAct, DepthwiseSeparable, leaky_relu
from train.models.pan import resize_to


class GhostModule(nn.Module):
    """Half of the channels by a 1x1 convolution, the other half from those by a cheap depthwise 3x3.

    Source: Han et al., GhostNet, CVPR 2020.
    """

    def __init__(self, in_channels: int, out_channels: int, activate: bool) -> None:
        super().__init__()
        half = out_channels // 2

        def activation() -> nn.Module:
            return leaky_relu() if activate else nn.Sequential()

        self.primary_conv = nn.Sequential(
            nn.Conv2d(in_channels, half, 1, bias=False), nn.BatchNorm2d(half), activation()
        )
        self.cheap_operation = nn.Sequential(
            nn.Conv2d(half, half, 3, 1, 1, groups=half, bias=False), nn.BatchNorm2d(half), activation()
        )

    def forward(self, x: Tensor) -> Tensor:
        primary = self.primary_conv(x)
        return torch.cat((primary, self.cheap_operation(primary)), dim=1)


class GhostBottleneck(nn.Module):
    """Two ghost modules beside a depthwise-separable shortcut, stride 1."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        self.ghost1 = GhostModule(in_channels, out_channels, activate=True)
        self.ghost2 = GhostModule(out_channels, out_channels, activate=False)
        self.shortcut = nn.Sequential()
        if in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, in_channels, kernel_size, 1, kernel_size // 2, groups=in_channels, bias=False),
                nn.BatchNorm2d(in_channels),
                nn.Conv2d(in_channels, out_channels, 1, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        return self.ghost2(self.ghost1(x)) + self.shortcut(x)


class GhostBlocks(nn.Module):
    """One bottleneck that merges two concatenated maps. Key: ``blocks``."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(GhostBottleneck(in_channels, out_channels, kernel_size))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)


class GhostPAN(nn.Module):
    """Top-down and bottom-up fusion by ghost blocks, and one extra level at twice the coarsest stride.

    Args:
        in_channels: channels of the backbone maps, from fine to coarse.
        out_channels: channels of every output map.
        kernel_size: of the depthwise convolutions.
    """

    def __init__(self, in_channels: Sequence[int], out_channels: int, kernel_size: int = 5) -> None:
        super().__init__()
        merges = len(in_channels) - 1

        def downsample() -> DepthwiseSeparable:
            return DepthwiseSeparable(out_channels, out_channels, kernel_size, stride=2)

        def merge() -> GhostBlocks:
            return GhostBlocks(2 * out_channels, out_channels, kernel_size)

        self.reduce_layers = nn.ModuleList(ConvNormAct(channels, out_channels, 1) for channels in in_channels)
        self.top_down_blocks = nn.ModuleList(merge() for _ in range(merges))  # from coarse to fine
        self.downsamples = nn.ModuleList(downsample() for _ in range(merges))
        self.bottom_up_blocks = nn.ModuleList(merge() for _ in range(merges))
        self.extra_lvl_in_conv = nn.ModuleList([downsample()])
        self.extra_lvl_out_conv = nn.ModuleList([downsample()])

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Maps ``[N, C_i, H_i, W_i]`` from fine to coarse -> one map more than was given, of ``out_channels``."""
        reduced = [layer(x) for layer, x in zip(self.reduce_layers, features, strict=True)]
        fused = [reduced[-1]]
        for finer, block in zip(reversed(reduced[:-1]), self.top_down_blocks, strict=True):
            fused.insert(0, block(torch.cat((resize_to(fused[0], finer), finer), dim=1)))
        maps = [fused[0]]
        for coarser, downsample, block in zip(fused[1:], self.downsamples, self.bottom_up_blocks, strict=True):
            maps.append(block(torch.cat((downsample(maps[-1]), coarser), dim=1)))
        extra = self.extra_lvl_in_conv[0](reduced[-1]) + self.extra_lvl_out_conv[0](maps[-1])
        return [*maps, extra]
