"""SAPD from its settings to a checkpoint: what it learns, what is kept of it, what other families refuse."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gfl_edge.errors import InputError
from tests.support.squares_run import SAPD, assert_resuming_gives_the_same_files
from train.checkpoint import Checkpoint
from train.config import LossConfig, read_config
from train.describe import load_described
from train.models.build import build_network
from train.models.gfl import GFLConfig
from train.network import TrainedNetwork, build_criterion, build_detector
from train.objective.sapd import SoftAnchorPoints
from train.run import train
from train.structures import Target
from train.weights.loading import load_detector

SMALL = GFLConfig(
    family="sapd",
    depth=18,
    base_channels=8,
    neck_channels=16,
    head_channels=16,
    num_groups=4,
    stacked_convs=1,
    num_classes=2,
    strides=(8, 16, 32),
    quality="none",
    regression="dirac",
)


def test_it_overfits_a_few_images(toml):
    metrics = train(read_config(toml, [*SAPD, "train.epochs=24", "train.evaluate_every=24"]))
    assert metrics["AP50"] > 90
    assert metrics["AP"] > 60


def test_resuming_a_run_gives_the_same_files(toml):
    assert_resuming_gives_the_same_files(toml, [*SAPD, "train.epochs=3", "train.soft_levels_epoch=2"])


def test_a_checkpoint_is_a_detector_without_the_network_that_selects(toml):
    train(read_config(toml, [*SAPD, "train.epochs=1"]))
    assert any(key.startswith("meta_selection.") for key in Checkpoint.load("run/last.pt").state_dict)
    detector, spec = load_described(Path("run/last.pt"))
    assert (detector.config.family, detector.meta_selection) == ("sapd", None)
    assert (spec.family, spec.point_offset, spec.class_names) == ("sapd", 0.5, ("white", "gray"))
    train(read_config(toml, [*SAPD, "train.epochs=1", 'model.weights="run/last.pt"', 'train.output="again"']))
    assert load_detector(Checkpoint.load("run/last.pt").state_dict).config.family == "sapd"


@pytest.mark.parametrize(
    ("setting", "expected"), [([], [False, False, True, True, True]), (["1"], [False] + [True] * 4)]
)
def test_levels_are_soft_from_half_of_the_epochs_on(toml, monkeypatch, setting, expected):
    seen = []
    call = SoftAnchorPoints.__call__
    monkeypatch.setattr(
        SoftAnchorPoints,
        "__call__",
        lambda self, outputs, *rest: (seen.append(outputs.selection.is_soft), call(self, outputs, *rest))[1],
    )
    changes = [f"train.soft_levels_epoch={epoch}" for epoch in setting]
    train(read_config(toml, [*SAPD, *changes, "train.epochs=5", "train.evaluate_every=0", "train.batch=8"]))
    assert seen == expected


def test_distances_are_multiples_of_four_strides_and_never_negative():
    torch.manual_seed(0)
    network = build_network(SMALL).eval()
    x = torch.randn(1, 3, 64, 64)
    raw = []
    network.bbox_head.gfl_reg.register_forward_hook(lambda module, inputs, output: raw.append(output.detach()))
    outputs = network.forward_train(x)
    for logits, distances in zip(raw, outputs.reg_logits, strict=True):
        torch.testing.assert_close(distances, 4 * logits.clamp(min=0))
    assert outputs.centerness is None
    scores, _ = network(x)
    assert all(torch.equal(a, b) for a, b in zip(scores, outputs.cls_logits, strict=True))


def test_all_parts_of_the_network_learn():
    torch.manual_seed(0)
    network = TrainedNetwork(build_network(SMALL, auxiliary=True).train())
    criterion = build_criterion(SMALL, LossConfig())
    images = torch.randint(256, (2, 64, 64, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    targets = [Target(torch.tensor([[4.0, 4, 50, 60]]), torch.tensor([label])) for label in (0, 1)]
    losses = criterion(network(images), targets, (64, 64))
    assert set(losses) == {"focal", "iou", "selection"}
    sum(losses.values()).backward()
    # In the backbone, residual branches start with a factor of 0
    learned = [(name, p) for name, p in network.detector.named_parameters() if not name.startswith("backbone.")]
    assert any(name.startswith("meta_selection.") for name, _ in learned)
    assert not [name for name, p in learned if p.grad is None or not p.grad.any()]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (['model.gfl.family="sapd"'], "sapd predicts scores and distances alone"),
        ([*SAPD, 'model.gfl.quality="joint"'], "sapd predicts scores and distances alone"),
    ],
)
def test_networks_that_are_refused(toml, changes, message):
    with pytest.raises(InputError, match=message):
        read_config(toml, changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["train.soft_levels_epoch=1"], "train.soft_levels_epoch: only SAPD"),
        (["loss.shrink=0.3"], "loss: shrink: the objective of this family"),
        ([*SAPD, "loss.topk=9"], "loss: topk: the objective of this family"),
        ([*SAPD, "loss.shrink=0.0"], "loss: shrink 0.0"),
        ([*SAPD, "loss.max_levels=0"], "max_levels"),
    ],
)
def test_runs_that_are_refused(toml, changes, message):
    with pytest.raises(InputError, match=message):
        train(read_config(toml, changes))


def test_settings_reach_the_objective(toml):
    config = read_config(toml, [*SAPD, "loss.shrink=0.3", "loss.max_levels=2", "loss.iou_weight=2.0"])
    found = build_criterion(build_detector(config, 2).config, config.loss).config
    assert (found.num_classes, found.strides) == (2, (8, 16, 32))
    assert (found.shrink, found.max_levels, found.iou_weight, found.selection_weight) == (0.3, 2, 2.0, 0.1)
