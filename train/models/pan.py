"""The light PAN neck of NanoDet-m: 1x1 laterals, then additions up and down without further convolutions."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F


class Lateral(nn.Module):
    """A 1x1 convolution with bias under the key ``conv``."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


def resize_to(x: Tensor, like: Tensor) -> Tensor:
    """Bilinear resize of ``x`` to the height and width of ``like``."""
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


class PAN(nn.Module):
    """Path aggregation (Liu et al., CVPR 2018) in the form of RangiLyu/nanodet: nanodet/model/fpn/pan.py.

    Every map is first summed with the upsampled coarser one, then with the downsampled finer one.
    """

    def __init__(self, in_channels: Sequence[int], out_channels: int) -> None:
        super().__init__()
        self.lateral_convs = nn.ModuleList(Lateral(channels, out_channels) for channels in in_channels)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Maps ``[N, C_i, H_i, W_i]`` from fine to coarse -> as many maps of ``out_channels``."""
        maps = [lateral(x) for lateral, x in zip(self.lateral_convs, features, strict=True)]
        for i in range(len(maps) - 1, 0, -1):
            maps[i - 1] = maps[i - 1] + resize_to(maps[i], maps[i - 1])
        for i in range(len(maps) - 1):
            maps[i + 1] = maps[i + 1] + resize_to(maps[i], maps[i + 1])
        return maps
