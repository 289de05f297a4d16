"""Faults are counted by kind, and a case that fails is named with its reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.faults import commands
from benchmarks.faults.case import Case
from benchmarks.faults.faults import MODULES, count, measure
from gfl_edge.cli.main import COMMANDS
from gfl_edge.errors import InputError

CHECKOUT = Path(__file__).resolve().parents[2]
SILENT = {"models", "doctor", "schema"}  # that write no files, or one of the checkout


def fail(folder):
    raise ValueError(f"{folder}/x is cut")


def hold(folder):
    assert not list(folder.iterdir())
    (folder / "file").touch()


def test_tries_are_counted_by_kind():
    cases = [Case("first", "a", hold), Case("second", "a", fail), Case("third", "b", hold)]
    rows = [{key: value for key, value in row.items() if key != "seconds"} for row in count("kills", cases)]
    failed = ["second: ValueError: FOLDER/x is cut"]
    assert rows == [
        {"module": "kills", "kind": "a", "tried": 2, "held": 1, "failed": 1, "reasons": failed},
        {"module": "kills", "kind": "b", "tried": 1, "held": 1, "failed": 0, "reasons": []},
    ]


def test_what_a_stopped_measurement_counted_is_taken_over(tmp_path):
    for module in MODULES:
        (tmp_path / f"{module}.json").write_text(json.dumps([{"module": module}]))
    assert measure(tmp_path) == {"rows": [{"module": module} for module in MODULES]}


def test_one_module_alone_leaves_the_rows_of_the_others(tmp_path):
    results = tmp_path / "faults.json"
    results.write_text(json.dumps({"rows": [{"module": module, "at": "first"} for module in MODULES]}))
    (tmp_path / "cameras.json").write_text(json.dumps([{"module": "cameras", "at": "second"}]))
    rows = measure(tmp_path, "cameras", results)["rows"]
    assert [(row["module"], row["at"] == "second") for row in rows] == [(m, m == "cameras") for m in MODULES]
    with pytest.raises(
        InputError, match="--only fire: expected one of kills, disks, cameras, loads, places, limits, changes"
    ):
        measure(tmp_path, "fire", results)


def test_every_command_that_writes_files_is_tried():
    scripts = [path for room in ("calib", "train", "export") for path in (CHECKOUT / room).glob("*.py")]
    written = {path.stem for path in scripts if "run_command(" in path.read_text()} | {name for name, _, _ in COMMANDS}
    assert {command.name for command in commands.COMMANDS} == written - SILENT


def test_whatever_was_tried_held():
    rows = json.loads((CHECKOUT / "benchmarks/results/faults.json").read_text())["rows"]
    assert [row["kind"] for row in rows if row["held"] != row["tried"]] == []
