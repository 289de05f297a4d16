"""Weights whose batch norms normalize nothing can be trained on, as those of the same network that normalize."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from gfl_edge.media.images import read_image
from gfl_edge.ops.preprocess import resize_into
from tests.support.squares_run import assert_resuming_gives_the_same_files, losses
from train.checkpoint import Checkpoint
from train.config import read_config
from train.distributed import Process
from train.models.batch_norm import fuse_batch_norm, unfuse_batch_norm
from train.models.build import build_network
from train.models.gfl import GFLConfig
from train.models.nanodet import NanoDetConfig
from train.models.traits import TRAITS
from train.run import train
from train.unfolding import neutral_norms, unfold_batch_norms
from train.weights.loading import load_detector

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = Process(torch.device("cpu"))
GFL_18 = GFLConfig(
    2, depth=18, base_channels=8, neck_channels=32, head_channels=64, stacked_convs=1, strides=(8, 16, 32)
)
SMALL = {
    "nanodet-g": NanoDetConfig("nanodet-g", 2, 10, (16, 32, 64), 16, 1),
    "nanodet-plus": NanoDetConfig("nanodet-plus", 2, stage_channels=(16, 32, 64), neck_channels=16),
    "gfl": GFL_18,
}


def batches(count=4):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(8, 3, 96, 96, generator=generator) for _ in range(count)]


def folded_state(network):
    """Of the same function with batch norms that normalize nothing."""
    return unfuse_batch_norm(fuse_batch_norm(network).state_dict(), network)


@pytest.fixture(params=SMALL)
def network(request):
    """One as after training: its batch norms have the statistics of the images, and weights and biases of their own."""
    torch.manual_seed(0)
    network = build_network(SMALL[request.param])
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="leaky_relu")
    with torch.no_grad():
        for _ in range(10):
            outputs(network, batches(1)[0])
    return network


def outputs(network, images):
    with torch.no_grad():
        return torch.cat([level.flatten() for maps in network(images) for level in maps])


def difference(one, other):
    """Of outputs, in parts of their spread."""
    return float((one - other).square().mean().sqrt() / other.std())


def test_training_mode_computes_nearly_what_eval_mode_does(network):
    images = batches()[0]
    network.load_state_dict(folded_state(network))
    expected = outputs(network.eval(), images)
    apart = difference(outputs(copy.deepcopy(network).train(), images), expected)

    norms = neutral_norms(network)
    assert len(norms) == sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    norms[0].eval()
    modes = [module.training for module in network.modules()]
    unfold_batch_norms(network, norms, batches(), CPU)
    assert [module.training for module in network.modules()] == modes
    assert not neutral_norms(network)
    torch.testing.assert_close(outputs(network.eval(), images), expected, rtol=1e-4, atol=1e-4)
    assert difference(outputs(network.train(), images), expected) < 0.25 * apart


def test_norms_that_are_not_run_stay(network):
    network.load_state_dict(folded_state(network))
    norms = neutral_norms(network)
    unfold_batch_norms(nn.Sequential(*network.backbone_stages()[0]), norms, batches(1), CPU)
    assert len(neutral_norms(network)) == len(norms) - 1


def test_which_norms_are_neutral(network):
    assert not neutral_norms(network)
    assert not neutral_norms(build_network(network.config))  # fresh ones learn as they are
    half = {key: value.half().to(value.dtype) for key, value in folded_state(network).items()}
    network.load_state_dict(half)
    assert len(neutral_norms(network)) == sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    next(module for module in network.modules() if isinstance(module, nn.BatchNorm2d)).running_mean[0] = 0.1
    assert len(neutral_norms(network)) == sum(isinstance(module, nn.BatchNorm2d) for module in network.modules()) - 1


@pytest.fixture(scope="module")
def float_run(squares, tmp_path_factory):
    """The checkpoint of a run, and the same one with folded batch norms."""
    folder = tmp_path_factory.mktemp("float")
    words = [f'train.output="{folder}"', "train.epochs=5", "train.evaluate_every=0", "train.norm_eval=false"]
    train(read_config(squares / "run.toml", words))
    trained = load_detector(folder / "last.pt")
    replace(Checkpoint.load(folder / "last.pt"), state_dict=folded_state(trained)).save(folder / "folded.pt")
    return folder / "last.pt", folder / "folded.pt"


def test_a_run_that_starts_from_folded_weights_starts_as_well(toml, float_run, caplog):
    settings = ["train.epochs=1", "train.evaluate_every=0", "train.norm_eval=false", "optimizer.lr=1e-6"]
    with caplog.at_level("INFO"):
        for name, path in zip(("plain", "folded"), float_run, strict=True):
            train(read_config(toml, [*settings, f'model.weights="{path}"', f'train.output="{name}"']))
    said = [message for message in caplog.messages if "normalize nothing" in message]
    assert len(said) == 1
    assert said[0].startswith("20 batch norms of folded.pt normalize nothing, as of weights for inference: they got")
    assert losses("folded")[0] == pytest.approx(losses("plain")[0], rel=0.1)


def test_resuming_a_run_from_folded_weights(toml, float_run):
    assert_resuming_gives_the_same_files(toml, [f'model.weights="{float_run[1]}"', "train.norm_eval=false"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nanodet-g-416", "nanodet-plus-m-320"])
def test_published_weights_keep_what_they_know(checkpoint, data, name):
    """On COCO images, in training mode."""
    detector = load_detector(checkpoint(name))
    images, traits = np.empty((64, 320, 320, 3), np.uint8), TRAITS[detector.config.family]
    for path, image in zip(sorted(data("coco128/train2017").iterdir()), images, strict=False):
        resize_into(read_image(path), image, traits.resize)
    normalized = (torch.from_numpy(images) - torch.tensor(traits.mean_bgr)) / torch.tensor(traits.std_bgr)
    parts = normalized.permute(0, 3, 1, 2).split(16)
    expected = outputs(detector, parts[0])
    assert difference(outputs(copy.deepcopy(detector).train(), parts[0]), expected) > 0.3
    unfold_batch_norms(detector, neutral_norms(detector), parts, CPU)
    torch.testing.assert_close(outputs(detector, parts[0]), expected, rtol=1e-5, atol=1e-4)
    assert difference(outputs(detector.train(), parts[0]), expected) < 0.25
