"""Deformable convolution in plain PyTorch: DCNv1 (Dai et al., ICCV 2017) and modulated DCNv2 (Zhu et al., CVPR 2019).

:func:`deform_conv2d` is the one operator. It is written as a single GridSample at all kernel points followed by an
ordinary convolution whose stride is the kernel size: this form traces to standard ONNX and builds in TensorRT-RTX,
which has no deformable convolution. An exporter that wants another operator sets :attr:`DeformConv2d.operator`.
"""

from __future__ import annotations

from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

DeformKind = Literal["v1", "v2"]
KERNEL_SIZE = 3
KERNEL_POINTS = KERNEL_SIZE * KERNEL_SIZE


class DeformOperator(Protocol):
    """The signature of :func:`deform_conv2d`."""

    def __call__(
        self,
        x: Tensor,
        weight: Tensor,
        offset: Tensor,
        mask: Tensor | None,
        bias: Tensor | None,
        *,
        stride: int,
        padding: int,
        groups: int,
    ) -> Tensor: ...


def deform_conv2d(
    x: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    *,
    stride: int,
    padding: int,
    groups: int,
) -> Tensor:
    """Convolve ``x`` at displaced kernel points; zeros lie outside of it. One offset group, no dilation.

    Args:
        x: ``[N, C, H, W]``.
        weight: ``[D, C / groups, 3, 3]``.
        offset: ``[N, 18, Ho, Wo]`` in cells of ``x``; (dy, dx) for each kernel point, row by row, as in mmcv.
        mask: ``[N, 9, Ho, Wo]`` factors of the kernel points (DCNv2), or None.
        bias: ``[D]`` or None.
        stride: of the output grid, in cells.
        padding: in cells.
        groups: of the convolution.

    Returns:
        ``[N, D, Ho, Wo]`` in the dtype of ``x``.
    """
    points = sample_points(x, offset, mask, stride=stride, padding=padding)
    return F.conv2d(points.to(x.dtype), weight, bias, stride=KERNEL_SIZE, groups=groups)


def sample_points(x: Tensor, offset: Tensor, mask: Tensor | None, *, stride: int, padding: int) -> Tensor:
    """``x`` at all displaced kernel points, float32 ``[N, C, 3 * Ho, 3 * Wo]``; see :func:`deform_conv2d`."""
    # Float: FP16 has steps of an eighth of a cell beyond 128, and GridSample wants both inputs of one type
    shifts = offset.float()
    dy, dx = _interleave(shifts[:, 0::2]), _interleave(shifts[:, 1::2])
    cell_y = dy + _kernel_points(offset.shape[-2], stride, padding, offset.device)[:, None]
    cell_x = dx + _kernel_points(offset.shape[-1], stride, padding, offset.device)

    # [N, 3 * Ho, 3 * Wo, 2], (x, y) in -1..1. align_corners=False: cell i has its center at (2 i + 1) / size - 1
    height, width = x.shape[-2:]
    grid = torch.cat(((2 * cell_x + 1) / width - 1, (2 * cell_y + 1) / height - 1), dim=1).permute(0, 2, 3, 1)
    points = F.grid_sample(x.float(), grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    if mask is not None:
        points = points * _interleave(mask.float())
    return points


def _interleave(planes: Tensor) -> Tensor:
    """One plane per kernel point ``[N, 9, Ho, Wo]`` -> one plane ``[N, 1, 3 * Ho, 3 * Wo]`` of 3 x 3 tiles.

    The batch size is the inferred dimension, so that the exported Reshape has constant shapes.
    """
    height, width = planes.shape[-2:]
    tiles = planes.reshape(-1, KERNEL_SIZE, KERNEL_SIZE, height, width).permute(0, 3, 1, 4, 2)
    return tiles.reshape(-1, 1, KERNEL_SIZE * height, KERNEL_SIZE * width)


def _kernel_points(outputs: int, stride: int, padding: int, device: torch.device) -> Tensor:
    """Where the kernel points of ``outputs`` cells lie along one axis without offsets: float32 ``[3 * outputs]``."""
    first = torch.arange(outputs, dtype=torch.float32, device=device) * stride - padding
    return (first[:, None] + torch.arange(KERNEL_SIZE, dtype=torch.float32, device=device)).flatten()


class DeformConv2d(nn.Conv2d):
    """A 3x3 deformable convolution without bias that predicts its own offsets. Keys: ``weight``, ``conv_offset``.

    It is an ``nn.Conv2d``, so that a batch norm after it folds into it. Kind "v1" is mmcv's ``DeformConv2dPack``, "v2"
    its ``ModulatedDeformConv2dPack``: 18 offsets, then 9 logits of the mask. mmdetection's ResNet gives neither a bias.

    Attributes:
        operator: what computes the convolution; an exporter may put a function of the same signature here.
    """

    def __init__(self, in_channels: int, out_channels: int, kind: DeformKind, stride: int = 1, groups: int = 1) -> None:
        super().__init__(in_channels, out_channels, KERNEL_SIZE, stride, padding=1, groups=groups, bias=False)
        self.kind = kind
        self.operator: DeformOperator = deform_conv2d
        planes = (3 if kind == "v2" else 2) * KERNEL_POINTS
        self.conv_offset = nn.Conv2d(in_channels, planes, KERNEL_SIZE, stride, padding=1)
        self.reset_offsets()

    def reset_offsets(self) -> None:
        """Start as an ordinary convolution (v2: of half the strength, as in mmcv)."""
        nn.init.zeros_(self.conv_offset.weight)
        assert self.conv_offset.bias is not None
        nn.init.zeros_(self.conv_offset.bias)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` -> ``[N, D, H / stride, W / stride]``, rounded up."""
        planes = self.conv_offset(x)
        mask = planes[:, 2 * KERNEL_POINTS :].sigmoid() if self.kind == "v2" else None
        return self.operator(
            x,
            self.weight,
            planes[:, : 2 * KERNEL_POINTS],
            mask,
            self.bias,
            stride=self.stride[0],
            padding=1,
            groups=self.groups,
        )
