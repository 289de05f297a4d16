"""Operators and random networks that a lent GPU is measured with."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.lent.torch_network import (
    CANDIDATES,
    TORCHVISION,
    RawNetwork,
    give_candidates,
    operators,
    random_detector,
    use_operator,
)
from train.models.deform_conv import DeformConv2d, DeformKind, deform_conv2d
from train.models.nanodet import NanoDetConfig

CPU = torch.device("cpu")


@pytest.fixture
def with_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of its signature, and its groups from the shape of the weight."""

    def theirs(x: Tensor, offset: Tensor, weight: Tensor, bias: Any, *, stride: int, padding: int, mask: Any) -> Tensor:
        groups = x.shape[1] // weight.shape[1]
        return deform_conv2d(x, weight, offset, mask, bias, stride=stride, padding=padding, groups=groups)

    for name in ("torchvision", "torchvision.ops"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setattr(sys.modules["torchvision.ops"], "deform_conv2d", theirs, raising=False)


@pytest.mark.parametrize(("kind", "stride", "groups"), [("v1", 1, 2), ("v2", 2, 4)])
@pytest.mark.usefixtures("with_torchvision")
@torch.no_grad()
def test_operators_agree(kind: DeformKind, stride: int, groups: int) -> None:
    torch.manual_seed(0)
    layer = DeformConv2d(24, 24, kind, stride, groups)
    nn.init.normal_(layer.conv_offset.weight, std=0.2)
    x = torch.randn(1, 24, 13, 17).contiguous(memory_format=torch.channels_last)
    expected = layer(x)
    assert TORCHVISION in operators()
    for operator in operators().values():
        assert use_operator(layer, operator)
        torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", ["nanodet", "nanodet-plus"])
@torch.no_grad()
def test_a_random_network_gives_work_to_nms(family: Any) -> None:
    detector, spec = random_detector(NanoDetConfig(family), (160, 160), CPU)
    network = RawNetwork(detector, spec, torch.float32)
    images = torch.randint(0, 256, (1, 160, 160, 3), dtype=torch.uint8)
    give_candidates(network, spec.score_threshold, images)
    above = int((network(images)[0].sigmoid() > spec.score_threshold).sum())
    assert 0.9 * CANDIDATES < above < 1.1 * CANDIDATES
    half = network.half_copy()(images)
    assert all(maps.dtype == torch.float16 and maps.isfinite().all() for maps in half)
    assert network.dtype == torch.float32
