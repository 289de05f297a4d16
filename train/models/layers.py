"""Convolution blocks that the NanoDet networks are made of.

Attribute names are those of RangiLyu/nanodet's modules, so that its checkpoints load without renaming.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

LEAKY_SLOPE = 0.1  # of a leaky activation in NanoDet (RangiLyu/nanodet: nanodet/model/module/activation.py)

Activation = Callable[[], nn.Module]


def leaky_relu() -> nn.LeakyReLU:
    """Return the activation of NanoDet-m, -t, -g and -Plus."""
    return nn.LeakyReLU(LEAKY_SLOPE, inplace=True)


def relu6() -> nn.ReLU6:
    """Return the activation of EfficientNet-Lite, and of the head behind it."""
    return nn.ReLU6(inplace=True)


def relu() -> nn.ReLU:
    """Return the activation of RepVGG, and of the head behind it."""
    return nn.ReLU(inplace=True)


class ConvNormAct(nn.Module):
    """Convolution without bias, batch norm, activation. Keys: ``conv``, ``bn``."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        activation: Activation = leaky_relu,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)
        self.act = activation()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))


class DepthwiseSeparable(nn.Module):
    """Depthwise k x k, norm, act, pointwise 1 x 1, norm, act.

    Keys: ``depthwise``, ``dwnorm``, ``pointwise``, ``pwnorm``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        activation: Activation = leaky_relu,
    ) -> None:
        super().__init__()
        padding = kernel_size // 2
        self.depthwise = nn.Conv2d(
            in_channels, in_channels, kernel_size, stride, padding, groups=in_channels, bias=False
        )
        self.dwnorm = nn.BatchNorm2d(in_channels)
        self.pointwise = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.pwnorm = nn.BatchNorm2d(out_channels)
        self.act = activation()

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.dwnorm(self.depthwise(x)))
        return self.act(self.pwnorm(self.pointwise(x)))
