"""What a lent GPU is asked, as a dry run."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import fingerprints, gpu
from benchmarks.lent import networks
from gfl_edge import optional
from gfl_edge.cuda.interface import CudaDevice
from tests.support.stub_driver.library import StubDriver


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


def test_a_network_that_fails_takes_no_other_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    from benchmarks.lent import torch_network

    def fail(*_: object) -> None:
        raise RuntimeError("no room")

    monkeypatch.setattr(torch_network, "give_candidates", fail)
    rows = networks.measure(tmp_path, small=True)["rows"]
    assert [row["error"] for row in rows] == ["RuntimeError: no room"] * 3
    assert [json.loads(line)["error"] for line in (tmp_path / "networks.jsonl").read_text().splitlines()]
    monkeypatch.setattr(networks, "SECONDS", -1)
    assert [row["not_measured"] for row in networks.measure(tmp_path, small=True)["rows"]] == ["-1 s were over"] * 3


def test_a_stage_that_fails_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    stages = (gpu.Stage("nonsense", 20), gpu.Stage("machine", 60), gpu.Stage("replay", 0))
    monkeypatch.setattr(gpu, "STAGES", stages)
    assert gpu.main(["-o", str(tmp_path), "--dry-run"]) == 1
    rows = [json.loads(line) for line in (tmp_path / "stages.jsonl").read_text().splitlines()]
    assert [row["status"] for row in rows] == ["failed", "done", "stopped after 0 s"]
    assert "No module named 'benchmarks.lent.nonsense'" in " ".join(rows[0]["said"])


def test_rows_of_a_stage_that_is_stopped_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = tmp_path / "networks.jsonl"

    def stop(*_: object) -> tuple[str, list[str]]:
        rows.write_text('{"model": "gfl"}\n{"mod')
        return "stopped after 1 s", []

    rows.write_text("of an earlier run\n")
    monkeypatch.setattr(gpu, "_process", stop)
    assert gpu.main(["-o", str(tmp_path), "--only", "networks", "replay"]) == 1
    stages = json.loads((tmp_path / "gpu.json").read_text())["stages"]
    assert stages["networks"]["so_far"] == [{"model": "gfl"}]
    assert "so_far" not in stages["replay"]


def test_a_network_is_captured_with_the_kernels(
    stub: StubDriver, cuda_python: CudaDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for PyTorch's own capture, which needs a GPU: the maps of the first run again and again."""
    pytest.importorskip("torch")
    from benchmarks.lent import torch_backend

    class Captured(torch_backend.OnHost):
        ran = False

        def queue(self) -> None:
            if not self.ran:
                self.ran = True
                super().queue()
            for name in (torch_backend.CLASSES, torch_backend.EDGES):
                self._device.copy_to_device(self.addresses[name], self._pinned[name], self.stream)

        def capture(self, queue: Callable[[], None]) -> Callable[[], None]:
            self.graph = self._device.capture(self.stream, queue)
            return lambda: self._device.launch_graph(self.graph, self.stream)

        def close(self) -> None:
            self._device.destroy_graph(self.graph)
            super().close()

    monkeypatch.setattr(torch_backend, "OnHost", Captured)
    (*_, wanted) = networks._tiny()
    row = networks._attempt(wanted, cuda_python, replace(networks.LITTLE, first_runs=6))
    assert "error" not in row
    assert row["graph"] == "yes"
    assert list(row["gfocal"]["stages_p50_ms"]) == ["upload", "network", "nms", "download"]
    assert row["kernels_against_numpy"]["same_order"]
    assert stub.calls.count("cuGraphLaunch") > 5
