"""All that a lent GPU is asked, as a dry run."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

from benchmarks import fingerprints, gpu
from gfl_edge import optional


def test_every_stage_comes_to_its_end(tmp_path: Path) -> None:
    assert gpu.main(["-o", str(tmp_path), "--dry-run"]) == 0
    rows = {row["stage"]: row for row in map(json.loads, (tmp_path / "stages.jsonl").read_text().splitlines())}
    assert list(rows) == [stage.name for stage in gpu.STAGES]
    assert rows["machine"]["result"]["gpu"] == "Stub RTX 2080 Ti"
    for road in rows["results"]["result"].values():
        assert (road["same"], road["different"]) == (2, [])
        most = 0 if platform.machine() == "x86_64" else 1
        assert all(rule["most"] <= most for rule in road["resize"].values())
    replay = rows["replay"]["result"]
    assert (replay["compared_runs_that_differ"], replay["bytes_missing"]) == (0, 0)
    assert rows["times"]["result"]["resize_us"]["24x32"] > 0
    check_networks(rows["networks"]["result"])
    assert sum(stage.seconds for stage in gpu.STAGES) <= 25 * 60
    whole = json.loads((tmp_path / "gpu.json").read_text())
    assert whole["stages"]["replay"]["result"] == replay
    assert whole["fingerprint"] == fingerprints.take(gpu.SUBJECTS)


def check_networks(result: dict[str, Any]) -> None:
    """PyTorch on the CPU, and all around it as it would be on a GPU."""
    if not optional.available("torch"):
        assert result == {"not_measured": "PyTorch is not installed"}
        return
    assert [row["model"] for row in result["rows"]] == ["gfl", "gflv2", "nanodet-plus"]
    for row in result["rows"]:
        assert "error" not in row
        kernels = row["kernels_against_numpy"]
        assert kernels["candidates"] > 100
        assert kernels["same_order"]
        assert kernels["detections"] == kernels["expected_detections"] > 0
        assert kernels["max_box_difference_px"] < 1e-3
        assert kernels["max_score_difference"] < 1e-6
        assert row["resizing_against_host"]["max_difference"] <= 1
        rounding = row["fp16_against_fp32"]
        assert rounding["not_finite"] == 0
        assert min(rounding["signal_to_noise_db"].values()) > 30
        assert list(row["stream"]["stages_p50_ms"])[:5] == ["upload", "resize", "network", "nms", "download"]
        assert min(row[protocol]["fps"] for protocol in ("gfocal", "stream")) > 0
