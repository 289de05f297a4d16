"""The paper's comparison in small: rows that are there are kept, others are made."""

from __future__ import annotations

import json

import pytest

from benchmarks.training import ablation
from gfl_edge.environment import cpu_name
from gfl_edge.errors import InputError
from train.config import read_config


@pytest.fixture
def base(toml, monkeypatch, tmp_path):
    """Settings of runs of a second, one seed each; there is no committed result."""
    monkeypatch.setattr(ablation, "SEEDS", (0,))
    monkeypatch.setattr(ablation, "RESULTS", tmp_path / "results")
    (tmp_path / "results").mkdir()
    return read_config(toml, ["train.epochs=1", 'train.device="cpu"'])


def run_of(variant, seed=0, ap=1.0):
    return {"variant": variant, "seed": seed, "seconds": 1.0, "epoch": 1.0, "AP": ap, "AP50": 2.0, "AP75": 3.0}


def write_result(fingerprint, *runs):
    content = {"fingerprint": fingerprint, "commit": "abc", "runs": list(runs)}
    (ablation.RESULTS / "ablation.json").write_text(json.dumps(content))


def test_rows_are_trained_once(base, monkeypatch, tmp_path):
    folder = tmp_path / "runs"
    found = ablation.measure(base, "ablation", folder, "SAPD,focal loss")
    assert list(found["summary"]) == ["focal loss", "SAPD"]
    assert [(run["variant"], run["seed"], run["epoch"]) for run in found["runs"]] == [
        ("focal loss", 0, 1.0),
        ("SAPD", 0, 1.0),
    ]
    assert found["summary"]["SAPD"]["AP_std"] is None
    assert {run["device"] for run in found["runs"]} == {cpu_name()}
    monkeypatch.setattr(ablation, "train_seconds", lambda config: pytest.fail("it is there already"))
    assert ablation.measure(base, "ablation", folder, "SAPD") == found


def test_rows_that_are_not_asked_for_are_those_of_the_result(base, monkeypatch, tmp_path):
    monkeypatch.setattr(ablation, "train_seconds", lambda config: pytest.fail("nothing is to be trained"))
    write_result({}, run_of("ATSS"), run_of("SAPD", ap=5.0))
    folder = tmp_path / "runs"
    (folder / "SAPD-0").mkdir(parents=True)
    (folder / "SAPD-0" / "run.json").write_text(json.dumps({**run_of("SAPD", ap=7.0), "commit": "def"}))
    found = ablation.measure(base, "ablation", folder, "SAPD")
    assert [(run["variant"], run["AP"], run["commit"]) for run in found["runs"]] == [
        ("ATSS", 1.0, "abc"),
        ("SAPD", 7.0, "def"),
    ]


def test_rows_of_other_settings_are_not_kept(base, tmp_path):
    write_result({"losses of gfl": {"qfl": 1.0}}, run_of("ATSS"))
    with pytest.raises(InputError, match="measured on other losses of gfl: measure all rows, without --only"):
        ablation.kept_runs(tmp_path, "ablation")
    assert ablation.kept_runs(tmp_path, None) == []


def test_unknown_rows_are_refused(base, tmp_path):
    with pytest.raises(InputError, match="--only PAA: expected rows of focal loss, ATSS, SAPD"):
        ablation.measure(base, "ablation", tmp_path, "ATSS,PAA")


@pytest.mark.parametrize("name", ["ablation_bccd", "ablation_coco"])
def test_all_rows_fit_the_network(data, name, tmp_path):
    data("bccd" if name == "ablation_bccd" else "coco_more/instances.json")
    from benchmarks.training.training import read_shipped

    gfl = read_shipped(name, tmp_path).model.gfl
    assert gfl is not None
    for fields in ablation.VARIANTS.values():
        assert type(gfl)(**{**vars(gfl), **fields})
