"""Keys, types and errors of ``report.json``: against docs/report.md, a real measurement and the tracked report."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from gfl_edge.errors import InputError
from gfl_edge.report.schema import Report

pytest.importorskip("onnxruntime")
CHECKOUT = Path(__file__).resolve().parents[3]


def flat(value, path=""):
    """Path and value of every leaf, list elements as []; what has keys of its own is a leaf."""
    if isinstance(value, dict) and path not in ("versions", "models[].backend", "models[].accuracy.metrics"):
        for key, part in value.items():
            yield from flat(part, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for part in value:
            yield from flat(part, f"{path}[]")
    else:
        yield path, value


def documented():
    text = (CHECKOUT / "docs" / "report.md").read_text()
    return dict(re.findall(r"^\| `([\w.\[\]]+)` \| ([\w ]+) \|", text.partition("## Keys")[2], re.MULTILINE))


TYPES = {"integer": int, "number": (int, float), "string": str, "boolean": bool, "object": dict, "null": type(None)}


def fits(value, kind):
    if " or " in kind:
        return any(fits(value, part) for part in kind.split(" or "))
    if kind.startswith("list of "):
        return isinstance(value, list) and all(fits(part, kind.removeprefix("list of ")) for part in value)
    return isinstance(value, TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))


def test_documented_keys_are_the_real_ones(stored):
    kinds = documented()
    for path, value in flat(stored):
        assert path in kinds, f"{path} is not documented"
        assert fits(value, kinds[path]), (path, value, kinds[path])
    parents = {path for path, kind in kinds.items() if "object or null" in kind}
    assert kinds.keys() - {path for path, _ in flat(stored)} <= parents


def test_what_this_machine_lacks_is_documented_as_null(measured):
    kinds = documented()
    for path, value in flat(measured):
        if path.partition("[].device.")[2] not in ("clocks_mhz", "temperatures_c", "powers_w"):
            assert fits(value, kinds[path]), (path, value, kinds[path])


def test_the_tracked_report_is_read_and_written_without_loss():
    tree = json.loads((CHECKOUT / "benchmarks" / "results" / "report" / "report.json").read_text())
    assert Report.from_dict(tree).to_dict() == tree


def test_a_report_with_every_value_is_read_and_written_without_loss(stored):
    assert Report.from_dict(stored).to_dict() == stored


def test_numbers_have_six_significant_digits(stored):
    stored["settings"]["seconds"] = 1234.56789
    assert Report.from_dict(stored).to_dict()["settings"]["seconds"] == 1234.57


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("runs.0.latency.p50_ms", "5", "runs[0].latency.p50_ms '5': expected a number"),
        ("runs.0.latency.p50_ms", 0, "runs[0].latency.p50_ms 0: expected more than 0"),
        ("runs.0.latency.p50_ms", float("inf"), "runs[0].latency.p50_ms inf: expected a finite number"),
        ("runs.1.batch", 1.5, "runs[1].batch 1.5: expected a whole number"),
        ("runs.1.batch", -1, "runs[1].batch -1: expected 1 or more"),
        ("runs.0.warm_up.stable", 1, "runs[0].warm_up.stable 1: expected true or false"),
        ("runs.0.protocol", "x", "runs[0].protocol 'x': expected one of 'stream', 'offline', 'gfocal'"),
        ("runs.0.stages", {}, "runs[0].stages {}: expected a list"),
        ("runs.0.stages", [], "runs[0].stages: missing read, resize, upload, network, nms, download, other, draw"),
        ("models.0.input_hw", [1, 2, 3], "models[0].input_hw [1, 2, 3]: expected 2 values"),
        ("models.0.accuracy.metrics.AP", "31", "models[0].accuracy.metrics.AP '31': expected a number"),
        ("models.0.accuracy.metrics.AP", 3100, "models[0].accuracy.metrics.AP 3100: expected -1..100"),
        ("models.0.accuracy.metrics", {}, "models[0].accuracy.metrics: AP is missing"),
        ("models.0.backend", None, "runs[0].model 'tiny-fp32-nonms': that model has no backend"),
        ("models.0.iou_threshold", True, "models[0].iou_threshold True: expected a number"),
        ("runs.2.model", "x", "runs[2].model 'x': expected one of 'tiny-fp32-nonms'"),
        ("versions", [], "versions: []: expected a table"),
        ("machine", None, "machine: None: expected a table"),
        ("machine.speed", 1, "machine.speed: no such field. Known: cores, load_average_1min, "),
        ("machine.core", 1, "machine.core: no such field; cores?. Known: cores, load_average_1min, "),
    ],
)
def test_a_value_that_does_not_fit_is_named(stored, path, value, message):
    *parents, last = (int(part) if part.isdigit() else part for part in path.split("."))
    place = stored
    for part in parents:
        place = place[part]
    place[last] = value
    with pytest.raises(InputError, match=re.escape(message)):
        Report.from_dict(stored)


def test_metrics_without_boxes_of_a_size_are_none(stored):
    """Early versions wrote -1."""
    for found in (None, -1):
        tree = json.loads(json.dumps(stored))
        tree["models"][0]["accuracy"]["metrics"] |= {"APl": found, "AP": found}
        accuracy = Report.from_dict(tree).models[0].accuracy
        assert (accuracy.metrics["APl"], accuracy.ap) == (None, None)


def test_a_key_that_is_missing_is_named(stored):
    del stored["settings"]["frames"]["count"]
    with pytest.raises(InputError, match=r"settings\.frames: missing count"):
        Report.from_dict(stored)
