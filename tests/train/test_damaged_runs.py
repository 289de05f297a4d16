"""A run goes on from all of its state or not at all: damage is a sentence, and nothing was taken over."""

from __future__ import annotations

import copy
import math
import shutil

import numpy as np
import pytest
import torch

from gfl_edge.errors import CheckpointError
from tests.fuzz.readers.checkpoints import small_trainer
from tests.support.squares_run import squares, toml  # noqa: F401
from train.checkpoint import LAST, Checkpoint
from train.config import read_config
from train.run import train

pytestmark = pytest.mark.usefixtures("one_thread")


def change(*place, to=None, gone=False):
    """Replaces or removes what is at a place of a state."""

    def damage(state):
        holder = state
        for name in place[:-1]:
            holder = holder[name]
        if gone:
            del holder[place[-1]]
        else:
            holder[place[-1]] = to(holder[place[-1]]) if callable(to) else to

    return damage


OPTIMIZER, FIRST = ("optimizer", "param_groups", 0), ("optimizer", "state", 0)
RANDOM = ("random", 0)
DAMAGES = {
    "no position": (change("position", gone=True), "no entry training.position"),
    "an epoch of -1": (change("position", "epoch", to=-1), "epoch -1"),
    "a batch that is true": (change("position", "batch", to=True), "batch True"),
    "a step of 2^70": (change("position", "step", to=1 << 70), "step 1180591620717411303424"),
    "no weight": (change("network", "weight", gone=True), "another network"),
    "a weight of another shape": (change("network", "weight", to=torch.ones(3)), r"is \[3\], not \[1, 2\]"),
    "a weight of integers": (change("network", "weight", to=torch.ones(1, 2, dtype=torch.int64)), "no tensor of"),
    "NaN": (change("network", "bias", to=torch.full((1,), math.nan)), "bias holds NaN"),
    "no average": (change("average", to=None), "another train.ema_decay"),
    "an average of other keys": (change("average", "module.bias", gone=True), "another network"),
    "no optimizer": (change("optimizer", to=[]), "no state of the optimizer"),
    "no groups": (change("optimizer", "param_groups", to=[]), "other groups"),
    "other parameters": (change(*OPTIMIZER, "params", to=[0, 7]), "other groups"),
    "a rate that is a text": (change(*OPTIMIZER, "lr", to="0.1"), "the optimizer's lr is 0.1"),
    "betas of one": (change(*OPTIMIZER, "betas", to=(0.9,)), "the optimizer's betas"),
    "a state of parameter 9": (change("optimizer", "state", 9, to={}), "other parameters"),
    "a state without a moment": (change(*FIRST, "exp_avg", gone=True), "has not the entries exp_avg, exp_avg_sq, step"),
    "a moment of infinity": (change(*FIRST, "exp_avg_sq", to=torch.full((1, 2), math.inf)), "holds NaN or infinity"),
    "random numbers of torch": (change(*RANDOM, "torch", to=torch.zeros(5056, dtype=torch.uint8)), "random numbers"),
    "random numbers cut off": (change(*RANDOM, "torch", to=lambda state: state[:10]), "random numbers"),
    "a position beyond NumPy's words": (change(*RANDOM, "numpy", to=lambda s: [*s[:2], 10**9, *s[3:]]), "random"),
    "too few words of NumPy": (change(*RANDOM, "numpy", to=lambda s: [s[0], s[1][:9], *s[2:]]), "random numbers"),
    "random numbers of Python": (change(*RANDOM, "python", to=(3, (1, 2), None)), "random numbers"),
    "random numbers that are none": (change("random", to=7), "random numbers"),
}


@pytest.fixture
def trainer():
    return small_trainer(), copy.deepcopy(small_trainer().state_dict())


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_states_change_nothing(trainer, name):
    trainer, state = trainer
    damage, expected = DAMAGES[name]
    damage(state)
    before, drawn = copy.deepcopy(trainer.state_dict()), np.random.get_state()[1].sum()
    with pytest.raises(CheckpointError, match=expected) as caught:
        trainer.load_state_dict(state)
    assert str(caught.value).isprintable()
    after = trainer.state_dict()
    assert all(torch.equal(after["network"][key], value) for key, value in before["network"].items())
    assert after["position"] == before["position"]
    assert np.random.get_state()[1].sum() == drawn


def test_a_whole_state_is_taken(trainer):
    trainer, state = trainer
    trainer.load_state_dict(state)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("state_dict", [1]),
        ("state_dict", {"a": 1}),
        ("architecture", {"gfl": 3}),
        ("class_names", "ab"),
        ("class_names", ["a", 3]),
        ("config", {"train": {"epochs": torch.ones(2)}}),
        ("metrics", {"AP": "good"}),
        ("training", [1]),
    ],
)
def test_entries_of_other_types(tmp_path, field, value):
    content = {"format": 1, "state_dict": {"a": torch.ones(1)}, "architecture": {}, "class_names": ["a"]}
    content |= {"config": {}, "metrics": {}, field: value}
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=rf"x\.pt is damaged: its entry {field} is no"):
        Checkpoint.load(tmp_path / "x.pt")
    torch.save({**content, "format": torch.ones(3)}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="no checkpoint of this project in format 1"):
        Checkpoint.load(tmp_path / "x.pt")


def test_a_run_names_its_damaged_file(toml, tmp_path):  # noqa: F811
    train(read_config(toml, ["train.epochs=1", "train.evaluate_every=0"]))
    config = read_config(toml, ["train.epochs=2", "train.evaluate_every=0"])
    last = config.train.output / LAST
    whole = shutil.copy(last, tmp_path / "whole.pt")
    content = torch.load(whole, weights_only=True)
    state = content["training"]
    for name, value in (
        ("best", "x"),
        ("best", math.nan),
        ("unfinished", 3),
        ("position", {**state["position"], "batch": 99}),
    ):
        torch.save({**content, "training": {**state, name: value}}, last)
        with pytest.raises(CheckpointError, match=rf"{LAST}: .*(damaged|99 batches).*Copy it again, or start anew"):
            train(config, resume=True)
    damaged = bytearray((tmp_path / "whole.pt").read_bytes())
    damaged[len(damaged) // 2] ^= 1
    last.write_bytes(damaged)
    with pytest.raises(CheckpointError, match=rf"{LAST} .*was changed after it was written"):
        train(config, resume=True)
