"""The training loop: steps, resuming, averaging, logs."""

from __future__ import annotations

import copy
import csv
import math
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from gfl_edge.errors import CheckpointError, InputError
from train.chance import random_state, restore_random_state
from train.checkpoint import Checkpoint
from train.config import OptimizerConfig, ScheduleConfig
from train.data.loader import Batch
from train.distributed import Process
from train.ema import decay_at, start_average
from train.loop import LoopSettings, Trainer, TrainingError
from train.metrics import Table
from train.models.gfl import GFL, GFLConfig
from train.models.nanodet import NanoDet, NanoDetConfig
from train.network import LossConfig, Normalized, TrainedNetwork, criterion_config, warm_start
from train.objective.criterion import Criterion
from train.optim import Schedule, build_optimizer
from train.structures import Target
from train.weights.loading import describe_architecture, load_detector

CPU = Process(torch.device("cpu"))
# Not down to 1 x 1 pixel: there PyTorch 2.13 on a CPU now and then gives NaN for bfloat16 gradients of 3x3 convolutions
TINY_GFL = GFLConfig(
    depth=18,
    base_channels=8,
    neck_channels=16,
    head_channels=16,
    num_groups=4,
    stacked_convs=1,
    num_classes=2,
    strides=(8, 16, 32),
)
TINY_NANODET = NanoDetConfig("nanodet-plus", 2, stage_channels=(16, 32, 64), neck_channels=16)


class Squares:
    """Batches of white or gray squares on black, 64 x 64 pixels; class 0 is white."""

    def __init__(self, batches=2, batch=2, scale=1):
        self.steps_per_epoch, self.batch, self.scale = batches, batch, scale

    def batches(self, epoch, first_step=0):
        for step in range(first_step, self.steps_per_epoch):
            yield self.make(epoch, step)

    def make(self, epoch, step):
        rng = np.random.default_rng([step])
        images = np.zeros((self.batch, 64, 64, 3), np.uint8)
        targets = []
        for image in images:
            left, top = rng.integers(0, 32, 2)
            side, label = rng.integers(16, 32), rng.integers(2)
            image[top : top + side, left : left + side] = 255 if label == 0 else 100
            box = [[left, top, left + side, top + side]]
            targets.append(Target(torch.tensor(box, dtype=torch.float32), torch.tensor([int(label)])))
        return Batch(torch.from_numpy(images), targets, list(range(self.batch)), [])


def squared(outputs, targets, input_hw):
    """A mean over images, so that accumulation is exactly a larger batch."""
    return {"square": (outputs**2).flatten(1).mean(1).mean(), "mean": outputs.flatten(1).mean(1).mean() + 2}


class Toy(nn.Module):
    """Normalization without batch statistics, and chance."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, 8)
        self.norm = nn.GroupNorm(2, 4)
        self.dropout = nn.Dropout(dropout)

    def forward(self, images):
        return self.dropout(self.norm(self.conv(images.permute(0, 3, 1, 2) / 255.0))) + self.conv.bias.sum()


def make_trainer(network=None, criterion=squared, optimizer=None, schedule=None, average=None, **settings):
    torch.manual_seed(0)
    network = Toy() if network is None else network
    optimizer = optimizer or OptimizerConfig(lr=0.05)
    schedule = schedule or ScheduleConfig(kind="constant", warmup_steps=0)
    return Trainer(
        network,
        criterion,
        build_optimizer(network, optimizer),
        Schedule(schedule, 2, 3),
        LoopSettings(**settings),
        CPU,
        start_average(network, average) if average else None,
    )


def detector_trainer(config, lr=2e-3, average=None):
    torch.manual_seed(0)
    detector = GFL(config) if isinstance(config, GFLConfig) else NanoDet(config, auxiliary=True)
    network = TrainedNetwork(detector.train())
    criterion = Criterion(criterion_config(config, LossConfig()))
    return make_trainer(network, criterion, OptimizerConfig("adamw", lr=lr), average=average)


def epochs(trainer, data, count):
    return [step for _ in range(count) for step in trainer.run_epoch(data)]


@pytest.mark.parametrize("config", [TINY_GFL, TINY_NANODET], ids=["gfl", "nanodet-plus"])
def test_the_loss_falls(config):
    trainer = detector_trainer(config)
    steps = epochs(trainer, Squares(batch=4), 20)
    # Of NanoDet-Plus the highest comes some steps after the first, which assigns objects to worthless boxes
    totals = [sum(step.total for step in steps[at : at + 4]) for at in range(0, 40, 4)]
    assert totals[-1] < 0.8 * max(totals)
    assert (trainer.position.epoch, trainer.position.batch, trainer.position.step) == (20, 0, 40)
    assert [step.number for step in steps] == list(range(1, 41))
    names = {"qfl", "giou", "dfl"}
    assert set(steps[0].losses) == (names if config is TINY_GFL else names | {f"aux_{name}" for name in names})


def test_a_detached_auxiliary_head_leaves_the_neck_alone():
    torch.manual_seed(0)
    network = TrainedNetwork(NanoDet(TINY_NANODET, auxiliary=True), detach_epoch=1)
    batch = Squares().make(0, 0)
    for epoch, connected in ((0, True), (1, False)):
        network.start_epoch(epoch)
        network.zero_grad()
        outputs = network(batch.images)
        sum(level.sum() for level in outputs.auxiliary.cls_logits).backward()
        gradient = network.detector.backbone.conv1[0].weight.grad
        assert (gradient is not None) == connected


@pytest.mark.parametrize("stop", [1, 2, 3], ids=["within an epoch", "at its end", "within the next"])
@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, kind, stop):
    """Bit for bit, chance included: the toy has dropout."""

    def new():
        torch.manual_seed(0)
        return make_trainer(
            Toy(0.5), optimizer=OptimizerConfig(kind, lr=0.01), schedule=ScheduleConfig("cosine", 2), average=0.9
        )

    whole = new()
    torch.manual_seed(1)
    expected = epochs(whole, Squares(), 3)

    first = new()
    torch.manual_seed(1)
    running = (step for _ in range(3) for step in first.run_epoch(Squares()))
    begun = [next(running) for _ in range(stop)]
    Checkpoint(first.network.state_dict(), {}, ("a",), {}, {}, first.state_dict()).save(tmp_path / "last.pt")

    second = new()
    torch.manual_seed(2)
    second.load_state_dict(Checkpoint.load(tmp_path / "last.pt").training)
    rest = epochs(second, Squares(), 3 - second.position.epoch)
    assert [step.losses for step in begun + rest] == [step.losses for step in expected]
    assert [step.lr for step in begun + rest] == [step.lr for step in expected]
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, second.network.state_dict()[name]), name
        assert torch.equal(whole.average.module.state_dict()[name], second.average.module.state_dict()[name]), name


def test_a_resumed_detector_equals_an_uninterrupted_one(tmp_path):
    expected = epochs(detector_trainer(TINY_GFL, average=0.9), Squares(), 4)
    first = detector_trainer(TINY_GFL, average=0.9)
    epochs(first, Squares(), 2)
    Checkpoint(first.network.state_dict(), {}, ("a",), {}, {}, first.state_dict()).save(tmp_path / "last.pt")
    second = detector_trainer(TINY_GFL, average=0.9)
    second.load_state_dict(Checkpoint.load(tmp_path / "last.pt").training)
    assert [step.losses for step in epochs(second, Squares(), 2)] == [step.losses for step in expected[4:]]


def test_resuming_something_else_is_refused():
    state = make_trainer().state_dict()
    with pytest.raises(CheckpointError, match="another network"):
        detector_trainer(TINY_GFL).load_state_dict(state)
    with pytest.raises(CheckpointError, match="ema_decay"):
        make_trainer(average=0.9).load_state_dict(state)


def test_the_state_of_chance_comes_back():
    state = random_state()
    drawn = [random.random(), np.random.random(), torch.rand(1).item()]
    restore_random_state(state)
    assert [random.random(), np.random.random(), torch.rand(1).item()] == drawn


class Halves(Squares):
    """The batches of ``Squares(batches, 4)``, each in two parts."""

    def make(self, epoch, step):
        whole = Squares(batch=4).make(epoch, step // 2)
        part = slice(2 * (step % 2), 2 * (step % 2) + 2)
        return Batch(whole.images[part], whole.targets[part], whole.image_ids[part], [])


def test_accumulation_equals_a_larger_batch():
    large, parts = make_trainer(), make_trainer(accumulate=2)
    expected = epochs(large, Squares(2, 4), 3)
    found = epochs(parts, Halves(4, 2), 3)
    assert [step.total for step in found] == pytest.approx([step.total for step in expected], rel=1e-5)
    assert [step.images for step in found] == [4] * 6
    for a, b in zip(large.network.parameters(), parts.network.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-6)


def test_what_is_left_of_an_epoch_is_a_step():
    trainer = make_trainer(accumulate=2)
    steps = epochs(trainer, Squares(3, 2), 1)
    assert [step.images for step in steps] == [4, 2]
    assert trainer.position.epoch == 1


def test_gradients_are_clipped():
    free, clipped = make_trainer(), make_trainer(clip_norm=0.01)
    before = copy.deepcopy(clipped.network.state_dict())
    steps = [next(trainer.run_epoch(Squares())) for trainer in (free, clipped)]
    assert steps[0].grad_norm == steps[1].grad_norm > 0.01
    moved = torch.cat([(value - before[name]).flatten() for name, value in clipped.network.state_dict().items()])
    assert moved.norm().item() == pytest.approx(0.05 * 0.01, rel=1e-2)  # lr x the longest gradient; decay is small


def broken(after, what):
    count = 0

    def criterion(outputs, targets, input_hw):
        nonlocal count
        count += 1
        losses = squared(outputs, targets, input_hw)
        if count > after:
            losses["square"] = losses["square"] * what
        return losses

    return criterion


@pytest.mark.parametrize("what", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_the_run(what):
    trainer = make_trainer(criterion=broken(2, what))
    epochs(trainer, Squares(), 1)
    before = copy.deepcopy(trainer.network.state_dict())
    with pytest.raises(TrainingError, match=r"loss is not finite in step 3 \(epoch 2, batch 1\): square (nan|inf)"):
        epochs(trainer, Squares(), 1)
    assert all(torch.equal(value, before[name]) for name, value in trainer.network.state_dict().items())


def test_a_gradient_that_is_not_finite_stops_the_run():
    def criterion(outputs, targets, input_hw):
        return {"root": (outputs * 0).sum().sqrt()}

    with pytest.raises(TrainingError, match="gradient is not finite in step 1"):
        epochs(make_trainer(criterion=criterion), Squares(), 1)


def test_bfloat16_trains_and_losses_stay_float32():
    network = TrainedNetwork(GFL(TINY_GFL).train())
    criterion = Criterion(criterion_config(TINY_GFL, LossConfig()))
    seen = []

    def noting(outputs, targets, input_hw):
        losses = criterion(outputs, targets, input_hw)
        seen.append((outputs.reg_logits[0].dtype, {value.dtype for value in losses.values()}))
        return losses

    trainer = make_trainer(network, noting, OptimizerConfig("adamw", lr=1e-3), amp="bf16")
    epochs(trainer, Squares(), 1)
    assert all(dtypes == {torch.float32} for _, dtypes in seen)


def test_average():
    network = nn.BatchNorm1d(1)
    average = start_average(network, 0.5)
    assert [decay_at(n, 0.5) for n in (1, 2, 8, 100)] == [2 / 11, 3 / 12, 0.5, 0.5]
    with torch.no_grad():
        network.weight.fill_(2.0)
        network.running_mean.fill_(4.0)
        network.num_batches_tracked.fill_(7)
    average.update_parameters(network)
    copied = average.module
    assert copied.weight.item() == pytest.approx(1 * 2 / 11 + 2 * 9 / 11)
    assert copied.running_mean.item() == pytest.approx(4 * 9 / 11)
    assert copied.num_batches_tracked.item() == 7
    assert not copied.weight.requires_grad
    assert not copied.training
    assert network.weight.item() == 2.0


def test_schedules():
    step = Schedule(ScheduleConfig("step", warmup_steps=4, warmup_start=0.2, milestones=(2, 3), gamma=0.1), 10, 4)
    assert [step.factor(n) for n in (0, 2, 4, 19, 20, 29, 30)] == pytest.approx([0.2, 0.6, 1, 1, 0.1, 0.1, 0.01])
    cosine = Schedule(ScheduleConfig("cosine", warmup_steps=0, final=0.1), 10, 4)
    assert [cosine.factor(n) for n in (0, 20, 40, 50)] == pytest.approx([1, 0.55, 0.1, 0.1])
    constant = Schedule(ScheduleConfig("constant", warmup_steps=0), 10, 4)
    assert {constant.factor(n) for n in range(40)} == {1.0}


def test_parameter_groups():
    detector = GFL(TINY_GFL).train()
    detector.freeze(1)
    optimizer = build_optimizer(detector, OptimizerConfig(lr=0.1, decay_norms=False, backbone_lr_factor=0.5))
    rates = {(round(group["lr"], 3), group["weight_decay"]) for group in optimizer.param_groups}
    assert rates == {(0.05, 0.0), (0.05, 1e-4), (0.1, 0.0), (0.1, 1e-4)}
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert trained == {id(p) for p in detector.parameters() if p.requires_grad}
    assert Schedule(ScheduleConfig(warmup_steps=0, milestones=(1,)), 1, 2).apply(optimizer, 1) == pytest.approx(0.01)
    assert {round(group["lr"], 4) for group in optimizer.param_groups} == {0.005, 0.01}


@pytest.mark.parametrize("config", [TINY_GFL, TINY_NANODET], ids=["rgb", "bgr"])
def test_normalization_is_the_graphs(config):
    """The network in training computes what the exported module computes, up to where the convolutions are fused."""
    from export.graph import ExportedDetector
    from train.describe import describe

    detector = (GFL(config) if isinstance(config, GFLConfig) else NanoDet(config)).eval()
    spec = describe(detector, input_hw=(64, 64))
    images = Squares().make(0, 0).images
    with torch.no_grad():
        outputs = TrainedNetwork(detector).eval()(images)
        scores = torch.cat([level.flatten(2) for level in outputs.cls_logits], dim=2).transpose(1, 2).sigmoid()
        assert torch.allclose(ExportedDetector(detector, spec)(images)[1], scores, atol=1e-5)
        memory = Normalized(config.family, channels_last=True)(images)
    assert memory.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(memory, Normalized(config.family)(images))


def test_checkpoints_are_whole_or_the_old_ones(tmp_path, monkeypatch):
    path = tmp_path / "last.pt"
    Checkpoint({"a": torch.ones(1)}, {}, ("x",), {"train": {"epochs": 1}}, {"AP": 1.5}).save(path)

    def fail(content, file):
        file.write_bytes(b"half of it")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(InputError, match="cannot be written"):
        Checkpoint({"a": torch.zeros(1)}, {}, ("x",), {}).save(path)
    kept = Checkpoint.load(path)
    assert (kept.state_dict["a"].item(), kept.class_names, kept.metrics) == (1.0, ("x",), {"AP": 1.5})
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]


def test_checkpoints_load_safely_and_as_detectors(tmp_path):
    trainer = detector_trainer(TINY_GFL, average=0.9)
    epochs(trainer, Squares(), 1)
    detector = trainer.network.detector
    path = tmp_path / "best.pt"
    architecture = describe_architecture(detector.config)
    state, config = trainer.state_dict(), {"x": {"y": [1]}}
    Checkpoint(detector.state_dict(), architecture, ("a", "b"), config, {"AP": 1.0}, state).save(path)
    assert torch.load(path, weights_only=True)["class_names"] == ["a", "b"]
    loaded = load_detector(path)
    assert loaded.config == TINY_GFL
    for name, value in detector.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


@pytest.mark.parametrize("content", [b"", b"nonsense", {"state_dict": {}}])
def test_foreign_checkpoints_are_refused(tmp_path, content):
    path = tmp_path / "x.pt"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"checkpoint of this project|is empty|not a PyTorch checkpoint"):
        Checkpoint.load(path)
    with pytest.raises(CheckpointError, match="no such"):
        Checkpoint.load(tmp_path / "y.pt")


@pytest.mark.parametrize("config", [TINY_GFL, TINY_NANODET], ids=["gfl", "nanodet-plus"])
def test_starting_from_a_detector_with_other_classes(config, caplog):
    torch.manual_seed(0)
    kind = GFL if isinstance(config, GFLConfig) else NanoDet
    start, detector = kind(config), kind(replace(config, num_classes=5))
    fresh = copy.deepcopy(detector.state_dict())
    warm_start(detector, start, "start.pth")
    assert "final classification layer starts anew" in caplog.text
    for name, value in detector.state_dict().items():
        if "gfl_cls" not in name:
            assert torch.equal(value, start.state_dict()[name]), name
        elif kind is GFL:
            assert torch.equal(value, fresh[name]), name
        else:
            assert torch.equal(value[:5], fresh[name][:5]), name
            assert torch.equal(value[5:], start.state_dict()[name][2:]), name


def test_starting_from_another_architecture_is_refused():
    with pytest.raises(CheckpointError, match="asks for"):
        warm_start(GFL(TINY_GFL), NanoDet(TINY_NANODET), "start.pth")


@pytest.mark.parametrize("before", [None, b"", b"step,loss\n1,2.0\n", b"\xff"])
def test_a_table_is_there_from_its_first_row_on(tmp_path, before):
    path = tmp_path / "metrics.csv"
    if before is not None:
        path.write_bytes(before)
    table = Table(path)
    assert not path.exists()
    table.add({"step": 1, "AP": 0.5})
    assert path.read_text() == "step,AP\n1,0.5\n"


def test_tables_go_on_where_a_run_does(tmp_path):
    path = tmp_path / "losses.csv"
    table = Table(path)
    for step in (1, 2, 3):
        table.add({"step": step, "loss": step / 3})
    Table(path, resume_at=2).add({"step": 3, "loss": 9.0})
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert [(int(row["step"]), float(row["loss"])) for row in rows] == [(1, 1 / 3), (2, 2 / 3), (3, 9.0)]
