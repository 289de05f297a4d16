"""Weights between the start and the end of a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from gfl_edge.errors import CheckpointError, InputError
from train import blend as command
from train.blend import BLEND, SHARES, blended, smallest_within, without_training_parts
from train.checkpoint import Checkpoint
from train.config import read_config
from train.describe import load_described
from train.models.build import build_network
from train.models.gfl import GFLConfig
from train.models.nanodet import NANODET_G, NanoDet, NanoDetConfig
from train.run import train
from train.weights.loading import load_detector


def small(seed, **changes):
    """A network with statistics of its own."""
    torch.manual_seed(seed)
    config = {"num_classes": 3, "stage_channels": (16, 32, 64), "neck_channels": 32, **changes}
    network = NanoDet(type(NANODET_G)(**{**vars(NANODET_G), **config}))
    for norm in network.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
            norm.bias.data.normal_()
    return network.eval()


@torch.no_grad()
def test_both_ends_compute_what_they_did():
    start, end, image = small(0), small(1), torch.randn(1, 3, 64, 64)
    between = small(2)
    for share, network in ((0.0, start), (1.0, end)):
        between.load_state_dict(blended(start, end, share))
        for found, expected in zip(between(image), network(image), strict=True):
            for one, other in zip(found, expected, strict=True):
                torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)
    halves, thirds = blended(start, end, 0.5), blended(start, end, 1 / 3)
    assert not torch.equal(halves["head.gfl_cls.0.weight"], thirds["head.gfl_cls.0.weight"])


PLUS = NanoDetConfig("nanodet-plus", 2, stage_channels=(16, 32, 64), neck_channels=16)
SAPD = GFLConfig("sapd", depth=18, base_channels=8, neck_channels=16, quality="none", regression="dirac")


@pytest.mark.parametrize("config", [PLUS, SAPD], ids=lambda it: it.family)
def test_what_exists_only_in_training_is_no_part_of_it(config):
    torch.manual_seed(0)
    start, end = build_network(config, auxiliary=True), build_network(config)
    plain = without_training_parts(start)
    assert plain.state_dict().keys() == end.state_dict().keys() < start.state_dict().keys()
    assert all(torch.equal(value, start.state_dict()[name]) for name, value in plain.state_dict().items())
    assert blended(plain, end, 0.5).keys() == plain.state_dict().keys()


def test_networks_that_differ():
    with pytest.raises(CheckpointError, match="start and end are of different networks"):
        blended(small(0), small(0, num_classes=2), 0.5)


@pytest.mark.parametrize(
    ("tolerance", "share"),
    [(0, 0.5), (0.04, 0.5), (0.05, 0.3), (0.1, 0.2), (0.15, 0.2), (0.5, 0.1), (100, 0.0)],
)
def test_the_smallest_share_within_the_tolerance(tolerance, share):
    found = {1.0: 17.0, 0.5: 17.8, 0.4: 17.74, 0.3: 17.75, 0.2: 17.7, 0.1: 17.3, 0.0: 10.0}
    assert smallest_within(found, tolerance) == share


def test_of_equal_shares_the_start_is_taken():
    assert smallest_within(dict.fromkeys(SHARES, 0.0), 0) == 0.0


def test_a_run_is_blended(toml, capsys):
    train(read_config(toml, ["train.epochs=1"]))
    Path("run/last.pt").rename("start.pt")
    words = ['model.weights="start.pt"', 'train.output="tuned"', "train.epochs=1"]
    train(read_config(toml, words))
    capsys.readouterr()
    assert command.main([str(toml), "--set", *words]) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert found["share"] in SHARES
    assert captured.err.count("of the end: AP") == len(SHARES)
    assert f"export/to_onnx.py --weights tuned/{BLEND}" in captured.err
    written = Checkpoint.load(f"tuned/{BLEND}")
    assert written.metrics["AP"] == pytest.approx(found["AP"], abs=1e-3)
    assert load_described(Path(f"tuned/{BLEND}"))[1].class_names == ("white", "gray")
    assert load_detector(f"tuned/{BLEND}").config == load_detector("tuned/last.pt").config


def test_a_run_from_nothing_has_no_start(toml):
    with pytest.raises(InputError, match=r"data\.val and model\.weights: expected both"):
        command.write_best(read_config(toml), small(0), Path("out.pt"))
