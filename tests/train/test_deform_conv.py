"""Deformable convolution against its definition, and what an exporter makes of it."""

from __future__ import annotations

import math

import numpy as np
import onnxruntime
import pytest
import torch

from train.models.batch_norm import fuse_batch_norm
from train.models.deform_conv import DeformConv2d, deform_conv2d
from train.models.gfl_head import GFLHead, HeadLayout
from train.models.resnet import Bottleneck


def reference_deform(x, weight, offset, mask, bias, stride, padding, groups):
    """mmcv's definition, one sample at a time, float64."""
    outputs, inputs_per_group = weight.shape[:2]
    height, width = x.shape[-2:]
    result = np.zeros((len(x), outputs, *offset.shape[-2:]))

    def pixel(n, channel, i, j):
        return x[n, channel, i, j] if 0 <= i < height and 0 <= j < width else 0.0

    def sample(n, channel, y, xx):
        i, j = math.floor(y), math.floor(xx)
        a, b = y - i, xx - j
        top = (1 - b) * pixel(n, channel, i, j) + b * pixel(n, channel, i, j + 1)
        bottom = (1 - b) * pixel(n, channel, i + 1, j) + b * pixel(n, channel, i + 1, j + 1)
        return (1 - a) * top + a * bottom

    for n, d, row, column in np.ndindex(result.shape):
        first = d // (outputs // groups) * inputs_per_group
        for point in range(9):
            dy, dx = offset[n, 2 * point : 2 * point + 2, row, column]
            y = row * stride - padding + point // 3 + dy
            xx = column * stride - padding + point % 3 + dx
            factor = 1.0 if mask is None else mask[n, point, row, column]
            for channel in range(inputs_per_group):
                value = sample(n, first + channel, y, xx)
                result[n, d, row, column] += weight[d, channel, point // 3, point % 3] * value * factor
    return result + (0 if bias is None else bias[:, None, None])


@pytest.mark.parametrize(
    ("stride", "padding", "groups", "modulated"),
    [(1, 1, 1, False), (2, 1, 2, False), (1, 0, 4, True), (2, 1, 1, True)],
)
def test_deform_conv_against_its_definition(stride, padding, groups, modulated):
    generator = np.random.default_rng(stride + groups)
    x = generator.normal(size=(2, 4, 5, 7))
    size = [(side + 2 * padding - 3) // stride + 1 for side in x.shape[-2:]]
    weight = generator.normal(size=(4, 4 // groups, 3, 3))
    offset = generator.normal(0, 2, size=(2, 18, *size))  # some samples far outside
    mask = generator.uniform(size=(2, 9, *size)) if modulated else None
    bias = generator.normal(size=4) if modulated else None
    expected = reference_deform(x, weight, offset, mask, bias, stride, padding, groups)
    tensors = [None if a is None else torch.from_numpy(a).float() for a in (x, weight, offset, mask, bias)]
    got = deform_conv2d(*tensors, stride=stride, padding=padding, groups=groups)
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("kind", ["v1", "v2"])
def test_without_offsets_it_is_an_ordinary_convolution(kind):
    torch.manual_seed(0)
    conv = DeformConv2d(8, 8, kind, stride=2, groups=2)
    x = torch.randn(1, 8, 9, 6)
    ordinary = torch.nn.functional.conv2d(x, conv.weight, None, 2, 1, groups=2)
    if kind == "v2":  # untrained masks are sigmoid(0)
        ordinary = ordinary / 2
    torch.testing.assert_close(conv(x), ordinary, atol=1e-5, rtol=0)


def test_a_single_row_or_column():
    conv = DeformConv2d(2, 2, "v1")
    assert torch.isfinite(conv(torch.randn(1, 2, 1, 1))).all()


def test_half_precision_samples_far_cells_as_exactly_as_near_ones():
    """Coordinates in half would move the samples beyond cell 1024 by up to half a cell."""
    x = torch.arange(2000.0).remainder(2).expand(1, 1, 3, 2000).contiguous()
    weight = torch.zeros(1, 1, 3, 3)
    weight[0, 0, 1, 1] = 1
    offset = torch.full((1, 18, 3, 2000), 0.25)
    offset[:, 0::2] = 0
    half = deform_conv2d(x.half(), weight.half(), offset.half(), None, None, stride=1, padding=1, groups=1)
    assert half.dtype == torch.float16
    full = deform_conv2d(x, weight, offset, None, None, stride=1, padding=1, groups=1)
    torch.testing.assert_close(half.float(), full, atol=1e-3, rtol=0)


def test_a_batch_norm_folds_into_it():
    torch.manual_seed(0)
    block = Bottleneck(16, 16, width=8, stride=1, groups=2, dcn="v2").eval()
    torch.nn.init.normal_(block.conv2.conv_offset.weight, std=0.1)
    torch.nn.init.uniform_(block.bn2.running_mean)
    torch.nn.init.uniform_(block.bn2.bias)
    x = torch.randn(1, 16, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(fuse_batch_norm(block)(x), block(x), atol=1e-4, rtol=0)


def test_an_exporter_can_replace_the_operator():
    conv = DeformConv2d(2, 2, "v2", stride=2)
    seen = {}

    def operator(x, weight, offset, mask, bias, *, stride, padding, groups):
        seen.update(offset=offset.shape[1], mask=mask.shape[1], stride=stride, padding=padding, groups=groups)
        return x

    conv.operator = operator
    conv(torch.zeros(1, 2, 4, 4))
    assert seen == {"offset": 18, "mask": 9, "stride": 2, "padding": 1, "groups": 1}


class DeformableHead(torch.nn.Module):
    """One DCNv2 and the head of GFLv2: everything of the family that is not an ordinary convolution."""

    def __init__(self):
        super().__init__()
        self.conv = DeformConv2d(3, 32, "v2", stride=2)
        torch.nn.init.normal_(self.conv.conv_offset.weight, std=0.5)
        self.head = GFLHead(HeadLayout(4, 32, 32, levels=1, reg_max=16, stacked_convs=1, quality="guided"))

    def forward(self, images):
        outputs = self.head([self.conv(images)])
        return outputs.cls_logits[0], outputs.reg_logits[0]


def test_dcnv2_and_gflv2_export_at_any_size():
    torch.manual_seed(0)
    network = DeformableHead().eval()
    sizes = {0: torch.export.Dim("batch", min=1)}
    sizes |= {axis: 32 * torch.export.Dim(name, min=2, max=42) for axis, name in ((2, "rows"), (3, "columns"))}
    example = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        program = torch.onnx.export(
            network, (example,), dynamic_shapes={"images": sizes}, opset_version=18, dynamo=True, verbose=False
        )
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    images = torch.randn(1, 3, 96, 128)
    with torch.no_grad():
        for got, expected in zip(session.run(None, {"images": images.numpy()}), network(images), strict=True):
            np.testing.assert_allclose(got, expected.numpy(), atol=1e-4)
