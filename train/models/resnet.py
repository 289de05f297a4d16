"""ResNet (He et al., CVPR 2016) and ResNeXt (Xie et al., CVPR 2017), the backbones of GFL.

Keys are torchvision's, which mmdetection shares; a block's stride lies on its first 3x3 convolution (style "pytorch").
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from train.models.deform_conv import DeformConv2d, DeformKind

STAGE_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
BASIC_DEPTHS = (18, 34)  # the others have bottleneck blocks
BOTTLENECK_EXPANSION = 4


def _pointwise(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)


def _conv3x3(in_channels: int, out_channels: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, stride, 1, groups=groups, bias=False)


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    """The identity (no keys), or a 1x1 convolution with batch norm (keys ``0``, ``1``) where shapes change."""
    if stride == 1 and in_channels == out_channels:
        return nn.Sequential()
    return nn.Sequential(_pointwise(in_channels, out_channels, stride), nn.BatchNorm2d(out_channels))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv3x3(in_channels, out_channels, stride)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = _conv3x3(out_channels, out_channels)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(in_channels, out_channels, stride)

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The batch norm in front of the sum."""
        return self.bn2

    def forward(self, x: Tensor) -> Tensor:
        residual = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(residual)) + self.downsample(x))


class Bottleneck(nn.Module):
    """1x1, 3x3 (grouped in ResNeXt, deformable where ``dcn`` is set) and 1x1 beside a shortcut.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        width: channels of the 3x3 convolution.
        stride: of the 3x3 convolution.
        groups: of the 3x3 convolution.
        dcn: kind of deformable convolution, or None.
    """

    def __init__(
        self, in_channels: int, out_channels: int, width: int, stride: int, groups: int, dcn: DeformKind | None
    ) -> None:
        super().__init__()
        self.conv1 = _pointwise(in_channels, width)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = DeformConv2d(width, width, dcn, stride, groups) if dcn else _conv3x3(width, width, stride, groups)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = _pointwise(width, out_channels)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(in_channels, out_channels, stride)

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The batch norm in front of the sum."""
        return self.bn3

    def forward(self, x: Tensor) -> Tensor:
        residual = self.relu(self.bn1(self.conv1(x)))
        residual = self.relu(self.bn2(self.conv2(residual)))
        return self.relu(self.bn3(self.conv3(residual)) + self.downsample(x))


@dataclass(frozen=True)
class ResNetLayout:
    """What a ResNet is made of.

    Attributes:
        depth: 18, 34, 50 or 101.
        base_channels: of the stem; stage i has ``base_channels * 2 ** i`` planes, bottlenecks put out four times those.
        groups: of the 3x3 convolutions; 1 is a plain ResNet.
        base_width: channels per group in the first stage of a ResNeXt, as in "32x4d" (read where groups > 1).
        dcn: kind of deformable convolution, or None.
        dcn_stages: whether the blocks of stages c2, c3, c4, c5 have it.
    """

    depth: int = 50
    base_channels: int = 64
    groups: int = 1
    base_width: int = 4
    dcn: DeformKind | None = None
    dcn_stages: tuple[bool, bool, bool, bool] = (False, False, False, False)

    def __post_init__(self) -> None:
        if self.depth not in STAGE_BLOCKS:
            raise ValueError(f"depth {self.depth}: expected one of {', '.join(map(str, STAGE_BLOCKS))}")
        if self.basic and (self.dcn or self.groups != 1):
            raise ValueError(f"depth {self.depth} has neither groups nor deformable convolutions; take depth 50 or 101")
        if (self.dcn is not None) != any(self.dcn_stages):
            raise ValueError(f"dcn {self.dcn} with dcn_stages {self.dcn_stages}: give both or neither")

    @property
    def basic(self) -> bool:
        """Whether its blocks are basic ones, not bottlenecks."""
        return self.depth in BASIC_DEPTHS

    @property
    def out_channels(self) -> tuple[int, int, int, int]:
        """Channels of c2, c3, c4, c5."""
        first = self.base_channels * (1 if self.basic else BOTTLENECK_EXPANSION)
        return first, 2 * first, 4 * first, 8 * first

    def width(self, stage: int) -> int:
        """Channels of the 3x3 convolutions of bottleneck stage 0..3 (mmdetection's ResNeXt rule)."""
        planes = self.base_channels << stage
        return planes if self.groups == 1 else planes * self.base_width // self.base_channels * self.groups


def _stage(layout: ResNetLayout, stage: int) -> nn.Sequential:
    outputs = layout.out_channels
    inputs = outputs[stage - 1] if stage else layout.base_channels
    dcn = layout.dcn if layout.dcn_stages[stage] else None

    def block(in_channels: int, stride: int) -> nn.Module:
        if layout.basic:
            return BasicBlock(in_channels, outputs[stage], stride)
        return Bottleneck(in_channels, outputs[stage], layout.width(stage), stride, layout.groups, dcn)

    blocks = [block(inputs, stride=2 if stage else 1)]
    blocks += [block(outputs[stage], stride=1) for _ in range(STAGE_BLOCKS[layout.depth][stage] - 1)]
    return nn.Sequential(*blocks)


class ResNet(nn.Module):
    """Four feature maps at strides 4, 8, 16 and 32."""

    def __init__(self, layout: ResNetLayout) -> None:
        super().__init__()
        self.out_channels = layout.out_channels
        self.conv1 = nn.Conv2d(3, layout.base_channels, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(layout.base_channels)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1, self.layer2, self.layer3, self.layer4 = (_stage(layout, stage) for stage in range(4))

    def init_weights(self) -> None:
        """For training from scratch, as mmdetection: each residual branch starts as zero."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        for module in self.modules():
            if isinstance(module, DeformConv2d):
                module.reset_offsets()
            if isinstance(module, (BasicBlock, Bottleneck)):
                nn.init.zeros_(module.last_norm.weight)

    def stages(self) -> list[list[nn.Module]]:
        """The stem and the four stages, in the order in which fine-tuning freezes them."""
        return [[self.conv1, self.bn1], [self.layer1], [self.layer2], [self.layer3], [self.layer4]]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """``x`` float ``[N, 3, H, W]`` -> c2, c3, c4, c5."""
        c2 = self.layer1(self.maxpool(self.relu(self.bn1(self.conv1(x)))))
        c3 = self.layer2(c2)
        c4 = self.layer3(c3)
        return c2, c3, c4, self.layer4(c4)
