"""What a lent GPU is asked, as a dry run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import fingerprints, gpu


def test_every_stage_comes_to_its_end(tmp_path: Path) -> None:
    assert gpu.main(["-o", str(tmp_path), "--dry-run"]) == 0
    rows = {row["stage"]: row for row in map(json.loads, (tmp_path / "stages.jsonl").read_text().splitlines())}
    assert list(rows) == [stage.name for stage in gpu.STAGES]
    assert rows["machine"]["result"]["gpu"] == "Stub RTX 2080 Ti"
    for road in rows["results"]["result"].values():
        assert (road["same"], road["different"]) == (2, [])
        assert road["resize"]["stretch"] == {"most": 1, "over_one": 0}
        assert road["resize"]["letterbox"]["over_one"] < 0.01
    replay = rows["replay"]["result"]
    assert (replay["compared_runs_that_differ"], replay["bytes_missing"]) == (0, 0)
    assert rows["times"]["result"]["resize_us"]["24x32"] > 0
    assert sum(stage.seconds for stage in gpu.STAGES) <= 25 * 60
    whole = json.loads((tmp_path / "gpu.json").read_text())
    assert whole["stages"]["replay"]["result"] == replay
    assert whole["fingerprint"] == fingerprints.take(["kernels"])


def test_a_stage_that_fails_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    stages = (gpu.Stage("nonsense", 20), gpu.Stage("machine", 60), gpu.Stage("replay", 0))
    monkeypatch.setattr(gpu, "STAGES", stages)
    assert gpu.main(["-o", str(tmp_path), "--dry-run"]) == 1
    rows = [json.loads(line) for line in (tmp_path / "stages.jsonl").read_text().splitlines()]
    assert [row["status"] for row in rows] == ["failed", "done", "stopped after 0 s"]
    assert "No module named 'benchmarks.lent.nonsense'" in " ".join(rows[0]["said"])
