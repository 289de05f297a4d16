"""The network is exported in a faster form, which computes what the original one does."""

from __future__ import annotations

from dataclasses import replace

import onnx
import pytest
import torch
from torch import nn

from export import graph, parity
from export.negligible import drop_negligible
from export.unshuffle import UnshuffledStage, unshuffle
from gfl_edge.ops.onnx_graph import OnnxGraph
from gfl_edge.spec import spec_of
from tests.support.exported import shuffling_detector
from train import describe
from train.models.batch_norm import fuse_batch_norm
from train.models.nanodet import NANODET_G, NanoDet, NanoDetConfig
from train.models.shufflenet_v2 import ShuffleBlock, ShuffleNetV2


def lively(network):
    """Folded, with other weights in every channel, so that no two can be mistaken for one another."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.bias)
    return fuse_batch_norm(network.double())


def small(family):
    published = NANODET_G if family == "nanodet-g" else NanoDetConfig(family)
    config = replace(published, num_classes=3, stage_channels=(16, 32, 64), neck_channels=32)
    return NanoDet(config).eval()


class TestUnshuffledStage:
    @pytest.mark.parametrize("half", [1, 2, 7, 29])
    @pytest.mark.parametrize("blocks", [1, 2, 3, 4, 8, 11])
    def test_gives_the_channels_of_the_original_in_its_order(self, blocks, half):
        inputs, channels = 6, 2 * half
        others = (ShuffleBlock(channels, channels, stride=1) for _ in range(blocks - 1))
        stage = lively(nn.Sequential(ShuffleBlock(inputs, channels, stride=2), *others))
        x, order = torch.randn(2, inputs, 6, 4, dtype=torch.float64), [3, 1, 5, 0, 4, 2]
        expected = stage(x)
        unshuffled = UnshuffledStage(stage, order)
        assert sorted(unshuffled.order) == list(range(channels))
        torch.testing.assert_close(unshuffled(x[:, order]), expected[:, unshuffled.order])

    def test_cuts_every_branch_once_and_interleaves_nothing(self):
        stage = fuse_batch_norm(ShuffleNetV2((116, 232, 464)).stage3)
        unshuffled = UnshuffledStage(stage, range(116))
        assert unshuffled.pieces[0] == {0: 58, 1: 29, 2: 14, 3: 7, 4: 4, 5: 2, 6: 1, 7: 1}
        assert unshuffled.pieces[-1] == {7: 116}


@pytest.mark.parametrize("family", ["nanodet", "nanodet-plus"])
def test_maps_of_a_detector_are_those_of_the_original(family):
    detector = lively(small(family))
    x = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    expected = detector(x)
    unshuffle(detector)
    for maps, originals in zip(detector(x), expected, strict=True):
        for found, original in zip(maps, originals, strict=True):
            torch.testing.assert_close(found, original)


def smallest_weight(network):
    values = torch.cat([parameter.detach().flatten().abs() for parameter in network.parameters()])
    return values[values > 0].min()


class TestDropNegligible:
    def test_leaves_what_counts(self):
        conv = nn.Conv2d(2, 2, 1)
        conv.weight.data = torch.tensor([[1e-30, -1e-15], [1e-11, -0.5]]).reshape(2, 2, 1, 1)
        conv.bias.data = torch.tensor([-1e-17, 1e-3])
        drop_negligible(conv)
        assert torch.equal(conv.weight.flatten(), torch.tensor([0, 0, 1e-11, -0.5]))
        assert torch.equal(conv.bias, torch.tensor([0, 1e-3]))

    @pytest.mark.parametrize("value", [0.0, 1e-30])
    def test_is_a_matter_of_the_largest(self, value):
        conv = nn.Conv2d(2, 2, 1, bias=False)
        nn.init.constant_(conv.weight, value)
        drop_negligible(conv)
        assert torch.equal(conv.weight, torch.full_like(conv.weight, value))

    def test_changes_no_detection(self):
        detector = small("nanodet")
        dead = detector.backbone.stage2[1].branch2
        for part in dead[0], dead[3]:
            part.weight.data[:4] = 1e-30
        spec = replace(describe.describe(detector, input_hw=(64, 96), class_names=("a", "b", "c")), nms="none")
        images = torch.from_numpy(parity.random_images(2, spec.input_hw))
        rewritten, original = (graph.ExportedDetector(detector, spec, rewritten=it).eval() for it in (True, False))
        assert smallest_weight(rewritten) > 1e-20 > smallest_weight(original)
        with torch.no_grad():
            for found, expected in zip(rewritten(images), original(images), strict=True):
                torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_parity_compares_with_the_original_network(shuffling_onnx, monkeypatch):
    """Else a fault of the rewriting would be in both."""
    model = onnx.load(shuffling_onnx)
    monkeypatch.setattr(graph, "_rewrite", lambda body: pytest.fail("the reference was rewritten"))
    assert parity.compare(shuffling_detector(), model, spec_of(model, "small")).passed


def test_the_exported_graph_moves_few_channels(shuffling_onnx):
    """Its layout is that of the convolutions: the images, 3 rows of logits and the boxes are turned, nothing else."""
    network = OnnxGraph(onnx.load(shuffling_onnx))
    kinds = [node.op_type for node in network.nodes]
    assert kinds.count("Transpose") == 1 + 3 + 1
    assert not {"Gather", "Slice", "Tile", "Expand"} & set(kinds)
