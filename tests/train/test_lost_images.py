"""Runs whose images go bad while they last, and runs that learn nothing."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch

from gfl_edge.errors import AnnotationError
from train.checkpoint import BEST, LAST, Checkpoint
from train.config import read_config
from train.distributed import Process
from train.loop import TrainingError
from train.run import Run, train

PROCESS = Process(torch.device("cpu"))


@pytest.fixture
def copied(toml, tmp_path):
    """The set of squares in two folders, ``images`` to train on and ``val``, and the run's configuration."""
    shutil.copytree(toml.parent, tmp_path / "set")
    shutil.copytree(tmp_path / "set" / "images", tmp_path / "set" / "val")
    return tmp_path / "set"


def run_of(folder, *changes, resume=False):
    return Run(read_config(folder / "run.toml", ['data.val.images="val"', *changes]), PROCESS, resume)


def damage(path):
    path.write_bytes(path.read_bytes()[:60])


@pytest.mark.parametrize("spoil", [lambda path: path.unlink(), damage], ids=["deleted", "damaged"])
@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_goes_bad_in_training_is_left_out(copied, spoil, workers, caplog):
    run = run_of(copied, f"train.workers={workers}")
    spoil(copied / "images" / "3.png")
    assert run.run()["AP"] >= 0
    (line,) = [record.message for record in caplog.records if "3.png" in record.message]  # once in two epochs
    assert line.endswith("The image is left out")
    assert Checkpoint.load(copied.parent / "run" / LAST).training["position"]["epoch"] == 2


def test_an_image_that_goes_bad_in_validation_is_not_counted(copied, caplog):
    run = run_of(copied)
    whole = run.validation(run.detector)
    damage(copied / "val" / "5.png")
    found = run.validation(run.detector)
    assert "1 images could not be read, AP is that of the others" in caplog.text
    records = tuple(record for record in run.validation._annotations.records if record.path.name != "5.png")
    others = replace(run.validation._annotations, records=records)
    assert found == run._validation(others)(run.detector)
    assert whole.keys() == found.keys()


def test_what_was_learned_outlives_the_images(copied):
    run = run_of(copied)
    with_images = run.trainer._step

    def stepping(batches, count):
        if run.trainer.position.step == 1:
            shutil.move(copied / "images", copied / "moved")
        return with_images(batches, count)

    run.trainer._step = stepping
    with pytest.raises(AnnotationError, match=r"3 of 8 images went bad during the run: is their folder as"):
        run.run()
    assert Checkpoint.load(copied.parent / "run" / LAST).training["position"] == {"epoch": 0, "batch": 1, "step": 1}
    shutil.move(copied / "moved", copied / "images")
    metrics = run_of(copied, resume=True).run()
    unbroken = run_of(copied, 'train.output="unbroken"').run()
    assert metrics == unbroken
    for name in (LAST, BEST):
        ours, theirs = (Checkpoint.load(copied.parent / folder / name) for folder in ("run", "unbroken"))
        assert all(torch.equal(ours.state_dict[key], theirs.state_dict[key]) for key in theirs.state_dict)


def test_an_epoch_outlives_its_validation(copied):
    run = run_of(copied)
    shutil.move(copied / "val", copied / "moved")
    with pytest.raises(AnnotationError, match="images went bad during the run"):
        run.run()
    saved = Checkpoint.load(copied.parent / "run" / LAST)
    assert (saved.training["position"]["epoch"], saved.metrics) == (1, {})
    shutil.move(copied / "moved", copied / "val")
    assert run_of(copied, resume=True).run() == run_of(copied, 'train.output="unbroken"').run()
    for name in ("losses.csv", "metrics.csv"):  # both evaluations, the one that failed first
        ours, theirs = ((copied.parent / folder / name).read_text().splitlines() for folder in ("run", "unbroken"))
        assert [line.split(",")[:4] for line in ours] == [line.split(",")[:4] for line in theirs]


@pytest.mark.parametrize("assigner", ["atss", "dynamic_soft_label"])
def test_a_run_that_learns_no_object_stops(copied, assigner):
    """Boxes so small that no cell's center is in one, which train to the end without an error otherwise."""
    content = json.loads((copied / "instances.json").read_text())
    for entry in content["annotations"]:
        entry["bbox"] = [value / 64 + 1.2 for value in entry["bbox"][:2]] + [0.4, 0.3]
    (copied / "tiny.json").write_text(json.dumps(content))
    config = read_config(copied / "run.toml", ['data.train.annotations="tiny.json"', f'loss.assigner="{assigner}"'])
    message = rf"tiny\.json .* first epoch: {assigner} .* strides 8, 16, 32 .* 0\.4 x 0\.3 pixels in images of 64 x 64"
    with pytest.raises(TrainingError, match=message):
        train(config)


def test_the_validation_set_may_lack_a_class_and_number_them_otherwise(copied):
    content = json.loads((copied / "instances.json").read_text())
    content["categories"] = [{"id": 7, "name": "gray"}]
    content["annotations"] = [{**a, "category_id": 7} for a in content["annotations"] if a["category_id"] == 2]
    (copied / "gray.json").write_text(json.dumps(content))
    run = run_of(copied, 'data.val.annotations="gray.json"')
    assert run.class_names == ("white", "gray")
    records = run.validation._annotations.records
    assert {label for record in records for label in record.labels.tolist()} == {1}
    content["categories"] = [{"id": 7, "name": "grey"}]
    (copied / "gray.json").write_text(json.dumps(content))
    with pytest.raises(AnnotationError, match=r"gray\.json has no class white, gray.* Its classes: grey"):
        run_of(copied, 'data.val.annotations="gray.json"', 'train.output="other"')
