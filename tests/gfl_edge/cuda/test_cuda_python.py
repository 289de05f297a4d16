"""The GPU through cuda-python, on a fake of it that is compared with the real one."""

from __future__ import annotations

import ctypes
import inspect
import logging
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from gfl_edge import optional
from gfl_edge.cuda import CudaPythonDevice
from gfl_edge.errors import BackendError
from tests.support.fake_cuda import FILL_MODULE, Attribute, CUresult, FakeDriver


class TestCudaPython:
    def test_opens_in_order(self, driver: FakeDriver) -> None:
        CudaPythonDevice()
        assert driver.calls[:2] == ["cuInit", "cuDeviceGet"]
        assert "cuDevicePrimaryCtxRetain" not in driver.calls  # before it is needed

    def test_a_run_in_order(self, driver: FakeDriver) -> None:
        device = CudaPythonDevice()
        driver.calls.clear()
        with device.active():
            device.create_stream()
        with CudaPythonDevice().active():
            pass
        assert driver.calls[:4] == ["cuDevicePrimaryCtxRetain", "cuCtxPushCurrent", "cuStreamCreate", "cuCtxPopCurrent"]
        assert driver.calls.count("cuDevicePrimaryCtxRetain") == 1

    def test_freeing_after_an_error_only_logs(self, driver: FakeDriver, caplog: pytest.LogCaptureFixture) -> None:
        device = CudaPythonDevice()
        address = device.malloc(4)
        driver.fails = dict.fromkeys(["cuMemFree", "cuStreamDestroy"], CUresult.CUDA_ERROR_ILLEGAL_ADDRESS)
        with caplog.at_level(logging.WARNING):
            device.free(address)
            device.destroy_stream(0x57)
        assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
            "CUDA failed in cuMemFree",
            "CUDA failed in cuStreamDestroy",
        ]

    def test_a_captured_graph_runs_when_it_is_launched(self, driver: FakeDriver) -> None:
        device = CudaPythonDevice()
        stream, found, address = device.create_stream(), device.pinned_empty((4,), np.uint8), device.malloc(4)
        found[:] = 0

        def queue() -> None:
            device.memset(address, 5, 4, stream)
            device.copy_to_host(found, address, stream)

        graph = device.capture(stream, queue)
        assert not found.any()
        for _ in range(2):
            found[:] = 0
            device.launch_graph(graph, stream)
            assert found.tolist() == [5] * 4
        assert driver.calls.count("cuMemsetD8Async") == 1
        device.destroy_graph(graph)
        assert not driver.graphs

    def test_events_of_a_graph_have_the_times_of_its_launches(self, driver: FakeDriver) -> None:
        device = CudaPythonDevice()
        stream, address = device.create_stream(), device.malloc(4)
        events = device.create_event(), device.create_event()

        def queue() -> None:
            device.record_event(events[0], stream)
            device.memset(address, 5, 4, stream)
            device.record_event(events[1], stream)

        graph = device.capture(stream, queue)
        assert driver.events == [0, 0]
        device.launch_graph(graph, stream)
        first = list(driver.events)
        device.launch_graph(graph, stream)
        assert min(driver.events) > max(first) > 0

    def test_an_error_during_capture_comes_through(self, driver: FakeDriver) -> None:
        device = CudaPythonDevice()
        stream = device.create_stream()
        driver.fails["cuMemsetD8Async"] = CUresult.CUDA_ERROR_ILLEGAL_ADDRESS
        with pytest.raises(BackendError, match="cuMemsetD8Async"):
            device.capture(stream, lambda: device.memset(0, 0, 0, stream))
        assert driver.captured is None
        assert not driver.graphs

    @pytest.mark.parametrize("function", ["cuStreamBeginCapture", "cuStreamEndCapture", "cuGraphInstantiate"])
    def test_capture_that_cuda_refuses(self, driver: FakeDriver, function: str) -> None:
        device = CudaPythonDevice()
        driver.fails[function] = CUresult.CUDA_ERROR_ILLEGAL_ADDRESS
        with pytest.raises(BackendError, match=f"CUDA failed in {function}"):
            device.capture(device.create_stream(), lambda: None)
        assert not driver.graphs

    def test_no_gpu(self, driver: FakeDriver) -> None:
        driver.fails["cuInit"] = CUresult.CUDA_ERROR_NO_DEVICE
        message = r"finds no GPU \(CUDA_ERROR_NO_DEVICE: error no device\)\. Check nvidia-smi"
        with pytest.raises(BackendError, match=message):
            CudaPythonDevice()

    def test_no_driver(self, driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
        def absent(flags: int) -> None:
            raise RuntimeError("Failed to dlopen libcuda.so.1")  # cuda-python 12; 13 raises a subclass

        monkeypatch.setattr(driver, "cuInit", absent)
        message = r"no NVIDIA driver found \(Failed to dlopen libcuda.so.1\)\. Install the driver, or run the \.onnx"
        with pytest.raises(BackendError, match=message):
            CudaPythonDevice()

    def test_error_by_name_and_text(self, driver: FakeDriver) -> None:
        driver.fails["cuDevicePrimaryCtxRetain"] = CUresult.CUDA_ERROR_ILLEGAL_ADDRESS
        message = "CUDA failed in cuDevicePrimaryCtxRetain: CUDA_ERROR_ILLEGAL_ADDRESS: error illegal address"
        device = CudaPythonDevice()
        with pytest.raises(BackendError, match=message), device.active():
            pass

    def test_error_that_cuda_cannot_name(self, driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
        for ask in ("cuGetErrorName", "cuGetErrorString"):
            monkeypatch.setattr(driver, ask, lambda error: (CUresult.CUDA_SUCCESS, None))
        driver.fails["cuDeviceGet"] = CUresult.CUDA_ERROR_ILLEGAL_ADDRESS
        with pytest.raises(BackendError, match="CUDA failed in cuDeviceGet: unknown CUDA error"):
            CudaPythonDevice()

    @pytest.mark.parametrize(
        ("version", "warns"), [("12.6.1", True), ("12.9.0", True), ("12.9.1", False), ("13.0.0", False)]
    )
    def test_versions_that_hold_pythons_lock(
        self, version: str, warns: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        bindings, found = ModuleType("cuda.bindings"), ModuleType("cuda.bindings.driver")
        bindings.__version__ = version  # type: ignore[attr-defined]
        bindings.__file__ = found.__file__ = "fake"
        monkeypatch.setitem(sys.modules, "cuda.bindings", bindings)
        monkeypatch.setitem(sys.modules, "cuda.bindings.driver", found)
        from gfl_edge.cuda.cuda_python import load_driver

        for _ in range(2):
            assert load_driver() is found
        said = [f"cuda-python {version} keeps every other thread" in record.getMessage() for record in caplog.records]
        assert said == [True] * warns

    @pytest.mark.skipif(not optional.available("cuda.bindings.driver"), reason="cuda-python is not installed")
    def test_the_fake_is_like_the_real_library(self) -> None:
        real = optional.load("cuda.bindings.driver")
        for name, function in inspect.getmembers(FakeDriver, inspect.isfunction):
            if name.startswith("cu"):
                signature = getattr(real, name).__doc__.partition("\n")[0]  # "cuMemFree(dptr)"
                parameters = [part for part in signature.partition("(")[2].rstrip(")").split(",") if part]
                assert len(parameters) == len(inspect.signature(function).parameters) - 1, signature
        for status in CUresult:
            assert getattr(real.CUresult, status.name).value == status.value
        for attribute in Attribute:
            assert getattr(real.CUdevice_attribute, attribute.name).value == attribute.value
        assert real.CUstream_flags.CU_STREAM_NON_BLOCKING.value == 1
        assert real.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL.value == 1
        assert real.CUstreamCaptureStatus.CU_STREAM_CAPTURE_STATUS_ACTIVE.value == 1
        assert real.CUevent_record_flags.CU_EVENT_RECORD_EXTERNAL.value == 1

    @pytest.mark.skipif(not optional.available("cuda.bindings.driver"), reason="cuda-python is not installed")
    def test_the_real_library_takes_the_types_that_are_passed(self) -> None:
        """Conversion comes before the call, which fails without a driver, and on wrong handles with one."""
        driver = optional.load("cuda.bindings.driver")
        mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        calls: list[tuple[str, tuple[Any, ...]]] = [
            ("cuModuleLoadData", (FILL_MODULE,)),
            ("cuModuleGetFunction", (0, b"fill")),
            ("cuMemsetD8Async", (0, 7, 0, 0)),
            ("cuLaunchKernel", (0, 1, 1, 1, 1, 1, 1, 0, 0, ctypes.addressof(ctypes.c_void_p()), 0)),
            ("cuStreamBeginCapture", (0, mode)),
            ("cuGraphInstantiate", (driver.CUgraph(0), 0)),
            ("cuGraphLaunch", (0, 0)),
            ("cuEventRecordWithFlags", (0, 0, driver.CUevent_record_flags.CU_EVENT_RECORD_EXTERNAL)),
            ("cuEventElapsedTime", (0, 0)),
        ]
        for name, arguments in calls:
            try:
                status, *_ = getattr(driver, name)(*arguments)
            except RuntimeError:
                continue  # no libcuda
            assert status != driver.CUresult.CUDA_SUCCESS, name
