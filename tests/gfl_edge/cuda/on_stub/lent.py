"""What a lent GPU is asked, where some of it fails; all of it is in dry_run.py."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import gpu
from benchmarks.lent import networks
from gfl_edge.cuda.interface import CudaDevice
from tests.support.stub_driver.library import StubDriver


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
