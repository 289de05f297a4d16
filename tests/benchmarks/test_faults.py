"""Faults are counted by kind, and a case that fails is named with its reason."""

from __future__ import annotations

import json

import pytest

from benchmarks.faults.case import Case
from benchmarks.faults.faults import MODULES, count, measure
from gfl_edge.errors import InputError


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
    with pytest.raises(InputError, match="--only fire: expected one of kills, disks, cameras, loads"):
        measure(tmp_path, "fire", results)
