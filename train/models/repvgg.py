"""RepVGG (Ding et al., CVPR 2021), the backbone of NanoDet-RepVGG: three branches to train, one convolution to run.

Attribute names are those of RangiLyu/nanodet (nanodet/model/backbone/repvgg.py, module/conv.py), whose checkpoints come
in either form.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from train.models.layers import relu

STAGES = ("stage1", "stage2", "stage3", "stage4")  # at strides 4, 8, 16, 32
MAX_STEM = 64  # channels
MERGED = "rbr_reparam"


@dataclass(frozen=True)
class RepVggSize:
    """What one of RepVGG's sizes without groups is made of.

    Attributes:
        stage_channels: of the maps at strides 8, 16 and 32.
        stage_blocks: of the stages at strides 4, 8, 16 and 32.
    """

    stage_channels: tuple[int, int, int]
    stage_blocks: tuple[int, ...]


SMALL, LARGE = (2, 4, 14, 1), (4, 6, 16, 1)
# By nanodet's arch, as trained on ImageNet; its last_channel replaces the last number of channels
REPVGG_SIZES = {
    "A0": RepVggSize((96, 192, 1280), SMALL),
    "A1": RepVggSize((128, 256, 1280), SMALL),
    "A2": RepVggSize((192, 384, 1408), SMALL),
    "B0": RepVggSize((128, 256, 1280), LARGE),
    "B1": RepVggSize((256, 512, 2048), LARGE),
    "B2": RepVggSize((320, 640, 2560), LARGE),
    "B3": RepVggSize((384, 768, 2560), LARGE),
}


class Branch(nn.Sequential):
    """A convolution without bias, and its batch norm. Keys: ``0``, ``1``."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int) -> None:
        conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=False)
        super().__init__(conv, nn.BatchNorm2d(out_channels))

    @property
    def conv(self) -> nn.Conv2d:
        """The convolution."""
        return cast("nn.Conv2d", self[0])

    @property
    def norm(self) -> nn.BatchNorm2d:
        """The batch norm."""
        return cast("nn.BatchNorm2d", self[1])

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight and bias, float64, of one convolution that does the same in eval mode."""
        factor, shift = _affine(self.norm)
        return self.conv.weight.double() * factor[:, None, None, None], shift


class RepVggBlock(nn.Module):
    """The sum of a 3x3 convolution, a 1x1 convolution and, where the shape stays, the input; each with a batch norm."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.act = relu()
        keeps_shape = stride == 1 and in_channels == out_channels
        self.rbr_identity = nn.BatchNorm2d(in_channels) if keeps_shape else None
        self.rbr_dense = Branch(in_channels, out_channels, 3, stride)
        self.rbr_1x1 = Branch(in_channels, out_channels, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        if MERGED in self._modules:
            return self.act(self.get_submodule(MERGED)(x))
        y = self.rbr_dense(x) + self.rbr_1x1(x)
        return self.act(y if self.rbr_identity is None else y + self.rbr_identity(x))

    @torch.no_grad()
    def merge(self) -> None:
        """Become one 3x3 convolution, in place and to the same effect in eval mode; computed in float64."""
        dense, bias = self.rbr_dense.folded()
        point, point_bias = self.rbr_1x1.folded()
        weight, bias = dense + F.pad(point, [1, 1, 1, 1]), bias + point_bias
        if self.rbr_identity is not None:
            factor, shift = _affine(self.rbr_identity)
            own = torch.arange(len(factor))
            weight[own, own, 1, 1] += factor
            bias = bias + shift
        conv = nn.Conv2d(weight.shape[1], len(weight), 3, self.stride, 1)
        like = self.rbr_dense.conv.weight
        conv.weight, conv.bias = (nn.Parameter(value.to(like)) for value in (weight, bias))
        del self.rbr_identity, self.rbr_dense, self.rbr_1x1
        self.add_module(MERGED, conv)


class RepVgg(nn.Module):
    """Three feature maps at strides 8, 16 and 32.

    Args:
        stage_channels: of the maps; the stage before them has half as many as the first.
        stage_blocks: of the stages at strides 4, 8, 16 and 32.
    """

    def __init__(self, stage_channels: tuple[int, int, int], stage_blocks: tuple[int, ...]) -> None:
        super().__init__()
        self.out_channels = stage_channels
        first = stage_channels[0] // 2
        channels = min(MAX_STEM, first)
        self.stage0 = RepVggBlock(3, channels, 2)
        for name, width, count in zip(STAGES, (first, *stage_channels), stage_blocks, strict=True):
            inputs = [channels] + [width] * (count - 1)
            blocks = (RepVggBlock(given, width, 1 if number else 2) for number, given in enumerate(inputs))
            self.add_module(name, nn.Sequential(*blocks))
            channels = width

    def init_weights(self) -> None:
        """Random weights to train from: PyTorch's own, as nanodet's."""

    def stages(self) -> list[list[nn.Module]]:
        """The stem and the stages of strides 4, 8, 16 and 32."""
        return [[self.stage0], *([self.get_submodule(name)] for name in STAGES)]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``x`` float ``[N, 3, H, W]``, H and W multiples of 32 -> maps at strides 8, 16, 32."""
        x = self.stage0(x)
        maps = []
        for name in STAGES:
            x = self.get_submodule(name)(x)
            maps.append(x)
        _, c3, c4, c5 = maps
        return c3, c4, c5


def merge_branches(network: nn.Module) -> None:
    """Make one convolution of every block of RepVGG in ``network``, in place and to the same effect in eval mode."""
    for block in [module for module in network.modules() if isinstance(module, RepVggBlock)]:
        block.merge()


def split_branches(state: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """The state dict of a network with merged blocks as one with three branches, to the same effect.

    The 3x3 branch is the merged convolution, the other two give zeros. Keys that are not merged stay as they are.

    Args:
        state: of any shapes, which are not checked.
        network: with three branches; its tensors are not read and may be on the meta device.
    """
    split = dict(state)
    for name, block in network.named_modules():
        weight, bias = f"{name}.{MERGED}.weight", f"{name}.{MERGED}.bias"
        if not isinstance(block, RepVggBlock) or not {weight, bias} <= split.keys():
            continue
        norm = block.rbr_1x1.norm
        zeros = torch.zeros(norm.num_features)
        split[f"{name}.rbr_dense.0.weight"], shift = split.pop(weight), split.pop(bias)
        split[f"{name}.rbr_1x1.0.weight"] = torch.zeros(block.rbr_1x1.conv.weight.shape)
        split |= _neutral_norm(f"{name}.rbr_dense.1", torch.ones(norm.num_features), shift, norm.eps)
        split |= _neutral_norm(f"{name}.rbr_1x1.1", torch.ones(norm.num_features), zeros, norm.eps)
        if block.rbr_identity is not None:
            split |= _neutral_norm(f"{name}.rbr_identity", zeros, zeros, norm.eps)
    return split


def _neutral_norm(name: str, weight: Tensor, bias: Tensor, eps: float) -> dict[str, Tensor]:
    """The state of a batch norm whose statistics change nothing."""
    return {
        f"{name}.weight": weight,
        f"{name}.bias": bias,
        f"{name}.running_mean": torch.zeros(len(weight)),
        f"{name}.running_var": torch.full((len(weight),), 1 - eps),
        f"{name}.num_batches_tracked": torch.tensor(0),
    }


def _affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """What a batch norm in eval mode multiplies by and adds, float64."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    factor = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    return factor, norm.bias.double() - norm.running_mean.double() * factor
