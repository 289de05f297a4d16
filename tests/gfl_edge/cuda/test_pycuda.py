"""The GPU through PyCUDA, on a fake of it."""

from __future__ import annotations

import importlib.util
import logging
import sys
from pathlib import Path

import numpy as np
import pytest

from gfl_edge.cuda import PycudaDevice, open_device
from gfl_edge.errors import BackendError, MissingDependencyError
from tests.support.fake_cuda import FakePycuda


class TestPycuda:
    def test_does_not_capture(self, pycuda: FakePycuda) -> None:
        device = PycudaDevice()
        assert not device.captures
        stream = device.create_stream()
        for use in (
            lambda: device.capture(stream, lambda: None),
            lambda: device.launch_graph(1, stream),
            lambda: device.destroy_graph(1),
        ):
            with pytest.raises(BackendError, match="pycuda cannot capture CUDA graphs: install cuda-python"):
                use()

    def test_a_run_in_order(self, pycuda: FakePycuda) -> None:
        device = PycudaDevice()
        with device.active():
            stream = device.create_stream()
            device.destroy_stream(stream)
        assert pycuda.calls == ["init", "retain_primary_context", "push", "destroy stream", "pop"]

    def test_no_gpu(self, pycuda: FakePycuda) -> None:
        pycuda.fails["init"] = FakePycuda.RuntimeError("cuInit failed: no CUDA-capable device is detected")
        with pytest.raises(BackendError, match=r"finds no GPU \(cuInit failed: no CUDA-capable device is detected\)"):
            PycudaDevice()

    def test_cuda_does_not_start(self, pycuda: FakePycuda) -> None:
        pycuda.fails["init"] = FakePycuda.LogicError("cuInit failed: system has unsupported display driver")
        with pytest.raises(BackendError, match="CUDA failed: cuInit failed: system has unsupported"):
            PycudaDevice()

    def test_no_driver(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "pycuda").mkdir()
        (tmp_path / "pycuda/__init__.py").touch()
        reason = "libcuda.so.1: cannot open shared object file: No such file or directory"
        (tmp_path / "pycuda/driver.py").write_text(f"raise ImportError({reason!r})")  # pycuda is linked with libcuda
        for module in ("pycuda", "pycuda.driver"):
            monkeypatch.delitem(sys.modules, module, raising=False)
        monkeypatch.syspath_prepend(tmp_path)
        try:
            with pytest.raises(BackendError, match=r"no NVIDIA driver found \(libcuda\.so\.1: cannot open"):
                PycudaDevice()
        finally:
            sys.modules.pop("pycuda", None)

    @pytest.mark.skipif(importlib.util.find_spec("pycuda") is not None, reason="pycuda is installed")
    def test_not_installed(self) -> None:
        with pytest.raises(MissingDependencyError, match=r"pip install 'gfl-edge\[pycuda\]'"):
            open_device("pycuda")

    def test_freeing_after_an_error_only_logs(self, pycuda: FakePycuda, caplog: pytest.LogCaptureFixture) -> None:
        device = PycudaDevice()
        array = device.pinned_empty((4,), np.uint8)
        error = FakePycuda.LogicError("an illegal memory access was encountered")
        pycuda.fails = {"free pinned": error}
        with caplog.at_level(logging.WARNING):
            del array
        assert [record.getMessage() for record in caplog.records] == [f"CUDA failed: {error}"]
