"""Feature pyramid network (Lin et al., CVPR 2017) with RetinaNet's extra levels, as mmdetection builds it for GFL."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F


class Conv(nn.Module):
    """A convolution with bias under the key ``conv``."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class FPN(nn.Module):
    """Top-down sums of 1x1 laterals, a 3x3 convolution per level, extra levels by stride-2 convolutions.

    The extra levels start from the coarsest output (mmdetection's ``add_extra_convs="on_output"``).

    Args:
        in_channels: channels of the backbone maps, from fine to coarse.
        out_channels: channels of every output map.
        levels: number of output maps, at least as many as inputs.
    """

    def __init__(self, in_channels: Sequence[int], out_channels: int, levels: int) -> None:
        super().__init__()
        self.lateral_convs = nn.ModuleList(Conv(channels, out_channels, 1) for channels in in_channels)
        strides = [1] * len(in_channels) + [2] * (levels - len(in_channels))
        self.fpn_convs = nn.ModuleList(Conv(out_channels, out_channels, 3, stride) for stride in strides)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Maps ``[N, C_i, H_i, W_i]`` from fine to coarse -> ``levels`` maps of ``out_channels``."""
        maps = [lateral(x) for lateral, x in zip(self.lateral_convs, features, strict=True)]
        for i in range(len(maps) - 1, 0, -1):
            # By size and not by factor 2: c3 of an odd height is not twice c4
            maps[i - 1] = maps[i - 1] + F.interpolate(maps[i], size=maps[i - 1].shape[-2:], mode="nearest")
        outputs = [conv(x) for conv, x in zip(self.fpn_convs, maps, strict=False)]
        for conv in list(self.fpn_convs)[len(maps) :]:
            outputs.append(conv(outputs[-1]))
        return outputs
