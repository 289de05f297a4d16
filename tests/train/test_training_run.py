"""Whole runs from configuration files: command line, resuming, two processes, evaluation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gfl_edge.errors import CheckpointError, DownloadError, InputError
from gfl_edge.evaluation.ap import METRICS
from tests.support.squares_run import assert_resuming_gives_the_same_files, losses
from train import evaluate as evaluation
from train import train as command
from train.checkpoint import Checkpoint
from train.config import Config, read_config
from train.describe import load_described
from train.network import build_detector, criterion_config
from train.run import train
from train.validation import evaluate_checkpoint
from train.weights.find import data_folder
from train.weights.loading import load_detector

CHECKOUT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((CHECKOUT / "train" / "configs").glob("*.toml"))


def test_a_run_and_its_files(toml, capsys):
    assert command.main([str(toml), "--set", "train.epochs=3", "train.workers=1"]) == 0
    captured = capsys.readouterr()
    assert set(json.loads(captured.out)) == {*METRICS, "best_score", "F1"}
    assert "export/to_onnx.py --weights run/best.pt" in captured.err
    last = Checkpoint.load("run/last.pt")
    assert last.class_names == ("white", "gray")
    assert set(last.metrics) == {*METRICS, "best_score", "F1"}
    assert Config.from_dict(last.config) == read_config(toml, ["train.epochs=3", "train.workers=1"])
    assert Checkpoint.load("run/best.pt").training is None
    average = last.training["average"]
    assert all(
        torch.equal(value, average[f"module.{name}"])
        for name, value in load_detector("run/last.pt").state_dict().items()
    )
    assert len(losses("run")) == 6
    assert command.main([str(toml)]) == 1
    assert "holds a run already" in capsys.readouterr().err


def test_a_checkpoint_names_what_its_shapes_do_not_show(toml):
    config = read_config(toml, ["model.gfl.num_groups=2", "train.epochs=1"])
    train(config)
    assert load_detector("run/last.pt").config == replace(config.model.gfl, num_classes=2)


def test_an_export_takes_classes_and_size_from_the_checkpoint(toml):
    metrics = train(read_config(toml, ["train.epochs=1"]))
    spec = load_described(Path("run/last.pt"))[1]
    assert (spec.class_names, spec.input_hw) == (("white", "gray"), (64, 64))
    assert spec.recommended_score == metrics["best_score"]
    last = Checkpoint.load("run/last.pt")
    replace(last, metrics={"best_score": 0.42}).save("run/last.pt")
    assert load_described(Path("run/last.pt"))[1].recommended_score == 0.42


def test_a_model_has_the_name_that_its_configuration_gives_it(toml):
    train(read_config(toml, ["train.epochs=1", 'model.name="squares"']))
    spec = load_described(Path("run/last.pt"))[1]
    assert spec.name == "squares-64"
    with pytest.raises(InputError, match=r"model.name '\.\./x': files are called so"):
        read_config(toml, ['model.name="../x"'])


def test_weights_are_named_as_published(toml, tmp_path, monkeypatch):
    config = read_config(toml, ['model.weights="nanodet-m-320"'])
    assert config.model.weights == Path("nanodet-m-320")
    assert Config.from_dict(config.to_dict()).model.weights == Path("nanodet-m-320")
    monkeypatch.setenv("GFL_EDGE_DATA", str(tmp_path / "no data"))
    monkeypatch.setenv("GFL_EDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("gfl_edge.zoo.weights.download", lambda wanted: pytest.fail(f"downloads {wanted.url}"))
    (tmp_path / "cache" / "weights").mkdir(parents=True)
    (tmp_path / "cache" / "weights" / "nanodet_m.ckpt").write_bytes(b"something else")
    with pytest.raises(DownloadError, match=r"nanodet_m\.ckpt"):
        build_detector(config, 2)
    with pytest.raises(
        InputError, match=r"model\.weights 'nanodet-m-321': found neither .* published ones: nanodet-m-320"
    ):
        read_config(toml, ['model.weights="nanodet-m-321"'])


def test_resuming_a_run_gives_the_same_files(toml):
    assert_resuming_gives_the_same_files(toml, ["train.epochs=3"])


def test_two_processes_learn_what_one_does(toml, squares, tmp_path):
    """Over gloo, with the same total batch, which they share unevenly, and accumulation; a batch norm's own statistics
    would differ.
    """
    changes = ["train.batch=3", "train.accumulate=2", "train.epochs=4"]
    metrics = train(read_config(toml, [*changes, 'train.output="one"']))
    words = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1", "--standalone"]
    script = [str(CHECKOUT / "train" / "train.py"), str(toml), "--set", *changes, 'train.output="two"']
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    result = subprocess.run(
        [sys.executable, *words, *script], env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert result.returncode == 0, result.stderr
    assert losses("two") == pytest.approx(losses("one"), rel=1e-5)
    assert json.loads(result.stdout) == pytest.approx(metrics, abs=0.01)


def test_validation_gives_what_evaluate_gives(toml, squares, capsys):
    """The one reads batches from the training data, the other goes through the run time's detector."""
    found = train(read_config(toml, ["train.epochs=12"]))
    assert found["AP50"] > 5
    words = ["--weights", "run/last.pt", "--images", str(squares / "images")]
    words += ["--annotations", str(squares / "instances.json"), "--json", "report.json", "--device", "cpu"]
    assert evaluation.main(words) == 0
    report = json.loads(capsys.readouterr().out)
    assert {name: report[name] for name in METRICS} == pytest.approx({name: found[name] for name in METRICS}, abs=0.01)
    assert json.loads(Path("report.json").read_text()) == report
    assert report["model"]["name"] == "gfl-r18-64"


@pytest.mark.slow
def test_evaluate_gives_what_the_exported_graph_gives(data, checkpoint, exported):
    from gfl_edge.detector import Detector
    from gfl_edge.evaluation.ap import evaluate

    images, annotations = data("coco/val2017_mix397"), data("coco/instances_val2017_mix397.json")
    with Detector(exported("nanodet-plus-m-416"), "onnxruntime") as detector:
        expected = evaluate(detector, images, annotations, 50, progress=False).metrics
    found = evaluate_checkpoint(checkpoint("nanodet-plus-m-416"), images, annotations, limit=50, device="cpu")
    assert {name: found[name] for name in METRICS} == pytest.approx(expected, abs=0.05)


def test_help_and_usage(capsys):
    for main in (command.main, evaluation.main):
        with pytest.raises(SystemExit) as caught:
            main(["--help"])
        assert caught.value.code == 0
        assert capsys.readouterr().out.startswith("usage: train/")
        with pytest.raises(SystemExit) as caught:
            main([])
        assert caught.value.code == 2


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_fit_the_code(path):
    config = read_config(path)
    assert Config.from_dict(config.to_dict()) == config
    assert config.train.output.parts[0] == "artifacts"
    assert config.data.root == data_folder()


def test_relative_paths_start_at_the_file_or_where_the_command_runs(toml, squares, tmp_path, monkeypatch):
    assert read_config(toml).data.train.images == squares / "images"
    (tmp_path / "images").mkdir()  # the file's own folder comes first
    (tmp_path / "other.json").touch()
    config = read_config(toml, ['data.train.annotations="other.json"'])
    assert (config.data.train.images, config.data.train.annotations) == (squares / "images", tmp_path / "other.json")
    assert config.train.output == Path("run")
    with pytest.raises(InputError) as caught:
        read_config(toml, ['data.val.annotations="none.json"'])
    for text in ("data.val.annotations 'none.json'", f"{squares}", f"{tmp_path}", "data.root"):
        assert text in str(caught.value)


def test_data_may_have_a_root(toml, squares, tmp_path, monkeypatch):
    """It is not looked into: the data may be on another machine than the file is read on."""
    config = read_config(toml, ['data.root="/data"', f'data.val.images="{tmp_path}"'])
    assert (config.data.train.images, config.data.val.images) == (Path("/data/images"), tmp_path)
    (squares / "sets").mkdir(exist_ok=True)
    assert read_config(toml, ['data.root="sets"']).data.train.images == squares / "sets" / "images"
    with pytest.raises(InputError, match=r"data\.root 'none': found neither in"):
        read_config(toml, ['data.root="none"'])
    monkeypatch.setenv("GFL_EDGE_DATA", str(tmp_path))
    assert read_config(toml, ['data.root="$GFL_EDGE_DATA/a"']).data.train.images == tmp_path / "a" / "images"
    files = ["images", "annotations"]
    named = read_config(toml, [f'data.train.{name}="$GFL_EDGE_DATA/{name}"' for name in files]).data.train
    assert (named.images, named.annotations) == (tmp_path / "images", tmp_path / "annotations")


def test_overrides(toml):
    words = ["train.epochs=7", 'train.amp="bf16"', "schedule.kind='step'", "schedule.milestones=[1, 2]"]
    config = read_config(toml, [*words, "data.augmentation.flip=0.25", "train.clip_norm=35"])
    assert (config.train.epochs, config.train.amp, config.train.batch) == (7, "bf16", 4)
    assert config.schedule.milestones == (1, 2)
    assert config.data.augmentation.flip == 0.25
    assert config.train.clip_norm == 35.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("train.epoch=3", r"train\.epoch: no such field; epochs\?"),
        ("trian.epochs=3", r"run\.toml: trian: no such field; train\?"),
        ("data.augmentation.flop=1.0", r"data\.augmentation\.flop: no such field"),
        ("train.epochs=0", r"train\.epochs 0: expected 1 or more"),
        ('train.epochs="3"', r"train\.epochs '3': expected a whole number"),
        ("train.amp=fp16", "with quotes"),
        ('train.amp="fp8"', r"train\.amp 'fp8': expected one of"),
        ("epochs", "expected section.field=value"),
        ("model.gfl.num_classes=3", "leave it out"),
        ("model.gfl.depth=19", r"model\.gfl"),
        ('model.published="gfl-r50-1x"', "already"),
        ("schedule.milestones=[1]", "kind 'step'"),
        ("train.ema_decay=1.0", "ema_decay"),
        ("train.auxiliary_detach_epoch=2", "auxiliary = true"),
        ("optimizer.lr=-1", r"optimizer\.lr -1: expected more than 0"),
        ("optimizer.lr=inf", r"optimizer\.lr inf: expected a finite number"),
        ("train.epochs=2020-01-01", "not JSON serializable: expected texts, numbers"),
        ('train.output=""', r"train\.output '': expected a path"),
        (
            'model.weights="none.pth"',
            r"model\.weights 'none\.pth': found neither in .*squares.* nor in .*nanodet-m-320",
        ),
        ('model.backbone_weights="none.pth"', r"model\.backbone_weights 'none\.pth': found neither in .*squares"),
    ],
)
def test_settings_that_are_refused(toml, change, message):
    with pytest.raises(InputError, match=message):
        read_config(toml, [change])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ('data.resize="stretch"', InputError, "is run with 'fit'"),
        ("train.freeze_stages=5", InputError, "train.freeze_stages: stages 5"),
        ("train.auxiliary=true", InputError, "no auxiliary head"),
        ("train.batch=9", InputError, "batch size 9"),
        ('train.device="warp"', InputError, "cannot be used"),
        ("loss.topk=0", InputError, "loss: "),
    ],
)
def test_runs_that_are_refused(toml, change, error, message):
    with pytest.raises(error, match=message):
        train(read_config(toml, [change]))


def test_resuming_needs_a_run(toml):
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        train(read_config(toml), resume=True)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_configuration_as_windows_editors_save_it(toml, tmp_path, encoding):
    (toml.parent / f"{encoding}.toml").write_bytes(toml.read_text().replace("\n", "\r\n").encode(encoding))
    assert read_config(toml.parent / f"{encoding}.toml") == read_config(toml)


def test_a_configuration_in_another_encoding_is_named_with_its_line(toml, tmp_path):
    (tmp_path / "run.toml").write_bytes(b"# a\n# caf\xe9\n")
    with pytest.raises(InputError, match=r"run\.toml, line 2: the byte 0xe9 is not UTF-8"):
        read_config(tmp_path / "run.toml")


def test_a_missing_configuration_names_the_examples():
    with pytest.raises(InputError, match=r"bccd_nanodet_m\.toml"):
        read_config("none.toml")


def test_the_loss_follows_the_network(toml):
    config = read_config(toml, ["model.gfl.reg_max=8", "loss.giou_weight=3.0"])
    criterion = criterion_config(config.model.gfl, config.loss)
    assert (criterion.reg_max, criterion.strides, criterion.giou_weight) == (8, (8, 16, 32), 3.0)
