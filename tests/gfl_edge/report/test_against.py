"""A new report against an old one, and the command that compares them."""

from __future__ import annotations

import copy
import json

import pytest

from gfl_edge.cli.main import main
from gfl_edge.errors import InputError
from gfl_edge.report.against import changes, read_report
from gfl_edge.report.schema import Report

pytest.importorskip("onnxruntime")
pytest.importorskip("matplotlib")


def compared(old, new, any_device=False):
    return changes(Report.from_dict(old), Report.from_dict(new), 1.1, 0.2, any_device)


def slower(report, factor, ap_drop=0.0):
    new = copy.deepcopy(report)
    for run in new["runs"]:
        run["latency"]["p50_ms"] *= factor
    for model in new["models"]:
        if model["accuracy"] is not None:
            model["accuracy"]["metrics"]["AP"] -= ap_drop
    return new


@pytest.mark.parametrize(
    ("factor", "ap_drop", "failed"),
    [(1.0, 0.0, 0), (1.09, 0.19, 0), (0.5, -3.0, 0), (1.11, 0.0, 3), (1.0, 0.21, 3), (2.0, 0.3, 6)],
)
def test_what_is_a_regression(stored, factor, ap_drop, failed):
    found = compared(stored, slower(stored, factor, ap_drop))
    assert len(found) == 6  # p50 and AP of three runs
    assert sum(change.failed for change in found) == failed


def test_reports_that_do_not_compare(stored):
    other = copy.deepcopy(stored)
    other["device"]["cpu"] = "another"
    with pytest.raises(InputError, match=r"the old report is of .* --any-device"):
        compared(stored, other)
    assert compared(stored, other, any_device=True)
    other = copy.deepcopy(stored)
    other["models"][0]["backend"]["device"] = "another GPU"
    with pytest.raises(InputError, match="another GPU"):
        compared(stored, other)
    other = copy.deepcopy(stored)
    other["models"][0]["backend"]["name"] = "openvino"
    with pytest.raises(InputError, match="no model, protocol, batch and backend in common"):
        compared(stored, other)
    other = copy.deepcopy(stored)
    other["models"][0]["accuracy"]["images"] = 5000
    with pytest.raises(InputError, match=r"the old report's AP is on 3 images of a\.json, this one's on 5000"):
        compared(stored, other)


def test_ap_that_one_has_not_is_left_out(stored):
    other = copy.deepcopy(stored)
    other["models"][0]["accuracy"] = None
    assert {change.what for change in compared(stored, other)} == {"p50, ms"}


@pytest.mark.parametrize(
    "content",
    [
        *("", "[]", "{}", '{"format": 99}', '{"format": true}', '{"format": 1, "format": 1}', '{"format": NaN}'),
        *("[" * 10**5, "1" * 10**5, '{"format": 1' + "0" * 500 + "}", '{"format": "\\ud800"}', '"\x00"'),
    ],
)
def test_files_that_are_no_reports(tmp_path, content):
    (tmp_path / "report.json").write_text(content)
    with pytest.raises(InputError, match=r"gfl-edge bench -o REPORT|format 99, this gfl_edge reads 1"):
        read_report(tmp_path)
    with pytest.raises(InputError, match=r"cannot be read.*gfl-edge bench -o REPORT"):
        read_report(tmp_path / "none.json")


@pytest.mark.usefixtures("short_turns")
def test_the_command(tiny, tmp_path, capsys):
    words = ["bench", "--model", str(tiny), "--backend", "onnxruntime", "--seconds", "0.02", "-o", str(tmp_path / "r")]
    assert main(words) == 0
    captured = capsys.readouterr()
    assert "| tiny " in captured.out
    assert captured.out.rstrip().endswith("report.html")
    stored = read_report(tmp_path / "r").to_dict()
    assert stored["runs"][0]["model"] == "tiny-fp32-nonms"  # as the file was exported
    old = tmp_path / "old.json"
    old.write_text(json.dumps(slower(stored, 1e-3)))
    assert main([*words, "--against", str(old)]) == 1
    captured = capsys.readouterr()
    assert "REGRESSION" in captured.out
    assert "1 of 1 numbers are worse" in captured.err
    old.write_text(json.dumps(slower(stored, 1e3)))
    assert main([*words, "--against", str(old)]) == 0
    assert "no regression" in capsys.readouterr().err


def test_an_old_report_that_is_missing_is_noticed_before_measuring(tiny, tmp_path, capsys):
    assert main(["bench", "--model", str(tiny), "-o", str(tmp_path / "r"), "--against", str(tmp_path / "old")]) == 1
    assert "cannot be read (No such file or directory)" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


def test_help_says_every_choice(capsys):
    with pytest.raises(SystemExit):
        main(["bench", "--help"])
    text = capsys.readouterr().out
    assert "{stream,offline,gfocal}" in text
    assert "--max-slowdown" in text
