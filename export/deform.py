"""Deformable convolution as ONNX's own operator, for ONNX Runtime; TensorRT and OpenVINO take the GridSample form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from onnxscript import opset19
from torch import Tensor, nn

from train.models.deform_conv import KERNEL_SIZE, DeformConv2d, deform_conv2d

DEFORM_OPSET = 19  # the first with DeformConv


# One node for the exporter; computed as the GridSample form
_deform_conv = torch.library.custom_op("gfl_edge::deform_conv", deform_conv2d, mutates_args=())


@_deform_conv.register_fake
def _(x: Tensor, weight: Tensor, offset: Tensor, *_rest: object, **_settings: object) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0], *offset.shape[-2:])


def _translate(
    x: Any, weight: Any, offset: Any, mask: Any, bias: Any, *, stride: int, padding: int, groups: int
) -> Any:
    return opset19.DeformConv(
        x,
        weight,
        offset,
        bias,
        mask,
        kernel_shape=[KERNEL_SIZE, KERNEL_SIZE],
        strides=[stride, stride],
        pads=[padding] * 4,
        group=groups,
        offset_group=1,
    )


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {torch.ops.gfl_edge.deform_conv.default: _translate}


def use_deform_operator(model: nn.Module) -> None:
    """Make every deformable convolution of ``model`` one ``DeformConv`` node when it is exported, in place."""
    for module in model.modules():
        if isinstance(module, DeformConv2d):
            module.operator = _deform_conv
