"""A run small enough for tests: images of squares, and settings of a tiny GFL."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

# Group norms in the head, and batch norms that keep their statistics: the same whatever the batch
SETTINGS = """
[model.gfl]
depth = 18
base_channels = 8
neck_channels = 32
head_channels = 64
stacked_convs = 1
strides = [8, 16, 32]

[data]
input_hw = [64, 64]
resize = "fit"

[data.train]
format = "coco"
images = "images"
annotations = "instances.json"

[data.val]
format = "coco"
images = "images"
annotations = "instances.json"

[optimizer]
kind = "adamw"
lr = 2e-3

[schedule]
kind = "cosine"
warmup_steps = 2

[train]
output = "run"
epochs = 2
batch = 4
threads = 1
device = "cpu"
norm_eval = true
ema_decay = 0.9
"""

# Changes that make the GFL an SAPD
SAPD = ['model.gfl.family="sapd"', 'model.gfl.quality="none"', 'model.gfl.regression="dirac"']


@pytest.fixture(scope="session")
def squares(tmp_path_factory):
    """A folder with 8 images of white and gray squares, their COCO annotations and ``run.toml``."""
    import cv2

    folder = tmp_path_factory.mktemp("squares")
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for number in range(1, 9):
        image = np.zeros((64, 64, 3), np.uint8)
        (x, y), side, kind = rng.integers(0, 32, 2).tolist(), int(rng.integers(16, 32)), int(rng.integers(1, 3))
        image[y : y + side, x : x + side] = 255 if kind == 1 else 100
        cv2.imwrite(str(folder / "images" / f"{number}.png"), image)
        images.append({"id": number, "file_name": f"{number}.png", "width": 64, "height": 64})
        box = {"bbox": [x, y, side, side], "area": side * side, "iscrowd": 0}
        annotations.append({"id": number, "image_id": number, "category_id": kind, **box})
    categories = [{"id": 1, "name": "white"}, {"id": 2, "name": "gray"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(content))
    (folder / "run.toml").write_text(SETTINGS)
    return folder


@pytest.fixture
def toml(squares, monkeypatch, tmp_path):
    """The configuration file; the current folder is empty."""
    import torch

    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    yield squares / "run.toml"
    torch.set_num_threads(threads)


def interrupted_at(step):
    """For ``Trainer._step``: raises TrainingError once that many steps are done."""
    from train.loop import Trainer, TrainingError

    original = Trainer._step

    def stepping(self, batches, count):
        if self.position.step == step:
            raise TrainingError("interrupted")
        return original(self, batches, count)

    return stepping


def losses(folder):
    """Of every step of the run in ``folder``."""
    with (Path(folder) / "losses.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def assert_resuming_gives_the_same_files(toml, settings):
    """Run once to the end, and once interrupted after step 3, in the middle of the second epoch, and resumed."""
    import torch

    from train.checkpoint import Checkpoint
    from train.config import read_config
    from train.loop import TrainingError
    from train.run import train

    train(read_config(toml, [*settings, 'train.output="whole"']))
    config = read_config(toml, [*settings, 'train.output="parts"', "train.checkpoint_steps=1"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("train.loop.Trainer._step", interrupted_at(3))
        with pytest.raises(TrainingError, match="interrupted"):
            train(config)
    train(config, resume=True)
    assert losses("parts") == losses("whole")
    whole, parts = Checkpoint.load("whole/last.pt"), Checkpoint.load("parts/last.pt")
    assert whole.metrics == parts.metrics
    assert all(torch.equal(value, parts.state_dict[name]) for name, value in whole.state_dict.items())
