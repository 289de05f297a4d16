"""What both CUDA libraries do alike: on fakes of the libraries, on a real GPU, and for real without one."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gfl_edge import optional
from gfl_edge.cuda import open_device
from gfl_edge.cuda.interface import CudaDevice, Launch
from gfl_edge.errors import BackendError, InputError, MissingDependencyError
from tests.support.fake_cuda import FILL_MODULE, CUresult, FakeDriver, FakePycuda, FillParameters


class TestBothLibraries:
    def test_what_the_gpu_is(self, device: CudaDevice) -> None:
        assert (device.name, device.compute_capability, device.driver_version) == ("Fake RTX 2080 Ti", "sm75", "12.6")
        assert device.pci_bus_id == "0000:0B:00.0"

    def test_there_and_back(self, device: CudaDevice, fake: FakeDriver | FakePycuda) -> None:
        values = np.arange(12, dtype=np.float32).reshape(3, 4)
        with device.active():
            stream = device.create_stream()
            sent, received = device.pinned_empty((3, 4), np.float32), device.pinned_empty((3, 4), "float32")
            address = device.malloc(sent.nbytes)
            sent[:], received[:] = values, 0
            device.copy_to_device(address, sent, stream)
            device.copy_to_host(received[:2], address, stream)
            device.synchronize(stream)
            np.testing.assert_array_equal(received[:2], values[:2])
            assert not received[2].any()
            device.free(address)
            device.destroy_stream(stream)
        del sent, received
        assert not fake.memory.blocks

    def test_kernels_and_memset(self, device: CudaDevice, fake: FakeDriver | FakePycuda) -> None:
        with device.active():
            stream = device.create_stream()
            found, address = device.pinned_empty((8,), np.uint8), device.malloc(8)
            module = device.load_module(FILL_MODULE)
            device.memset(address, 9, 8, stream)
            fill = device.get_function(module, "fill")
            device.launch(fill, Launch((2, 1, 1), (3, 1, 1), 16), FillParameters(7, address, 6), stream)
            device.copy_to_host(found, address, stream)
            device.synchronize(stream)
            device.unload_module(module)
        assert found.tolist() == [7] * 6 + [9] * 2
        assert {"cuModuleUnload", "unload module"} & set(fake.calls)

    def test_events(self, device: CudaDevice, fake: FakeDriver | FakePycuda) -> None:
        with device.active():
            stream, address = device.create_stream(), device.malloc(4)
            first, second = device.create_event(), device.create_event()
            assert first != second
            device.record_event(first, stream)
            device.memset(address, 1, 4, stream)
            device.record_event(second, stream)
            assert device.elapsed_ms(first, second) >= 2
            fake.fails = {
                "cuEventRecord": CUresult.CUDA_ERROR_ILLEGAL_ADDRESS,
                "event": FakePycuda.LogicError("cuEventRecord failed: error illegal address"),
            }
            with pytest.raises(BackendError, match=r"CUDA failed.*cuEventRecord.*error illegal address"):
                device.record_event(first, stream)
            device.destroy_event(first)
            device.destroy_event(second)

    def test_a_module_that_cuda_refuses(self, device: CudaDevice, fake: FakeDriver | FakePycuda) -> None:
        fake.fails = {
            "cuModuleLoadData": CUresult.CUDA_ERROR_ILLEGAL_ADDRESS,
            "module_from_buffer": FakePycuda.LogicError("cuModuleLoadDataEx failed: error illegal address"),
        }
        with pytest.raises(BackendError, match=r"CUDA failed.*cuModuleLoadData.*error illegal address"):
            device.load_module(FILL_MODULE)

    def test_a_launch_that_cuda_refuses(self, device: CudaDevice, fake: FakeDriver | FakePycuda) -> None:
        stream = device.create_stream()
        fill = device.get_function(device.load_module(FILL_MODULE), "fill")
        fake.fails = {
            "cuLaunchKernel": CUresult.CUDA_ERROR_ILLEGAL_ADDRESS,
            "launch": FakePycuda.LogicError("cuLaunchKernel failed: error illegal address"),
        }
        with pytest.raises(BackendError, match=r"CUDA failed.*cuLaunchKernel.*error illegal address"):
            device.launch(fill, Launch((2, 1, 1), (3, 1, 1), 16), FillParameters(7, 0, 0), stream)

    def test_pinned_arrays_are_whole_and_writable(self, device: CudaDevice) -> None:
        with device.active():
            array = device.pinned_empty((2, 3), np.uint8)
        assert (array.shape, array.dtype) == ((2, 3), np.uint8)
        assert array.flags.c_contiguous
        assert array.flags.writeable

    @pytest.mark.parametrize("pinned", [False, True], ids=["device", "pinned host"])
    def test_out_of_memory_names_the_bytes(
        self, device: CudaDevice, fake: FakeDriver | FakePycuda, pinned: bool
    ) -> None:
        fake.fails = {
            "cuMemAlloc": CUresult.CUDA_ERROR_OUT_OF_MEMORY,
            "cuMemAllocHost": CUresult.CUDA_ERROR_OUT_OF_MEMORY,
            "mem_alloc": FakePycuda.MemoryError("cuMemAlloc failed: out of memory"),
            "pagelocked_empty": FakePycuda.MemoryError("cuMemHostAlloc failed: out of memory"),
        }
        allocate: Callable[[], Any] = (
            (lambda: device.pinned_empty((50, 20), np.float32)) if pinned else (lambda: device.malloc(4000))
        )
        kind = "pinned host" if pinned else "device"
        with pytest.raises(BackendError, match=rf"(?i)no room for 4000 bytes of {kind} memory \(.*out.of.memory"):
            allocate()

    def test_other_errors_carry_cudas_words(self, device: CudaDevice, fake: FakeDriver | FakePycuda) -> None:
        with device.active():
            stream = device.create_stream()
        fake.fails = {
            "cuStreamSynchronize": CUresult.CUDA_ERROR_ILLEGAL_ADDRESS,
            "synchronize": FakePycuda.LogicError("cuStreamSynchronize failed: error illegal address"),
        }
        with pytest.raises(BackendError, match=r"CUDA failed.*cuStreamSynchronize.*error illegal address"):
            device.synchronize(stream)

    def test_context_is_given_back_after_an_error(self, device: CudaDevice, fake: FakeDriver | FakePycuda) -> None:
        with device.active():
            fake.calls.clear()
        fake.calls.clear()
        with pytest.raises(ZeroDivisionError), device.active():
            raise ZeroDivisionError
        assert fake.calls in (["cuCtxPushCurrent", "cuCtxPopCurrent"], ["push", "pop"])


class TestOpenDevice:
    @pytest.fixture
    def no_cuda_python(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for module in ("cuda.bindings.driver", "cuda.cuda"):
            monkeypatch.setitem(sys.modules, module, None)

    def test_cuda_python_first(self, driver: FakeDriver, pycuda: FakePycuda) -> None:
        assert open_device().library == "cuda-python"

    @pytest.mark.usefixtures("no_cuda_python")
    def test_pycuda_where_cuda_python_is_missing(self, pycuda: FakePycuda) -> None:
        assert open_device().library == "pycuda"

    @pytest.mark.usefixtures("no_cuda_python")
    def test_cuda_python_is_missing(self) -> None:
        with pytest.raises(MissingDependencyError, match=r"cuda\.bindings\.driver.*pip install 'gfl-edge\[rtx\]'"):
            open_device("cuda-python")

    @pytest.mark.usefixtures("no_cuda_python")
    def test_both_are_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "pycuda.driver", None)
        with pytest.raises(MissingDependencyError, match=r"(?s)\[rtx\].*\[tensorrt\].*\[pycuda\]"):
            open_device()

    def test_a_gpu_that_fails_is_no_reason_to_try_the_other(self, driver: FakeDriver, pycuda: FakePycuda) -> None:
        driver.fails["cuInit"] = CUresult.CUDA_ERROR_NO_DEVICE
        with pytest.raises(BackendError, match="no GPU"):
            open_device()
        assert not pycuda.calls

    def test_unknown_library(self) -> None:
        with pytest.raises(InputError, match="unknown CUDA library 'cupy': expected one of auto, cuda-python, pycuda"):
            open_device("cupy")  # type: ignore[arg-type]

    @pytest.mark.skipif(not optional.available("cuda.bindings.driver"), reason="cuda-python is not installed")
    def test_real_library_without_a_driver(self) -> None:
        try:
            ctypes.CDLL("libcuda.so.1")
        except OSError:
            pass
        else:
            pytest.skip("there is an NVIDIA driver")
        with pytest.raises(
            BackendError, match=r"^no NVIDIA driver found \(.*\)\. Install the driver, or run the \.onnx"
        ):
            open_device()


@pytest.mark.gpu
@pytest.mark.parametrize("library", ["cuda-python", "pycuda"])
def test_real_gpu(library: Any) -> None:
    try:
        device = open_device(library)
    except MissingDependencyError as error:
        pytest.skip(str(error))
    assert device.name
    assert device.compute_capability.startswith("sm")
    with device.active():
        stream = device.create_stream()
        sent, received = device.pinned_empty((1000,), np.uint8), device.pinned_empty((1000,), np.uint8)
        address = device.malloc(sent.nbytes)
        sent[:], received[:] = np.arange(1000) % 251, 0
        device.copy_to_device(address, sent, stream)
        device.copy_to_host(received, address, stream)
        device.synchronize(stream)
        device.free(address)
        device.destroy_stream(stream)
    np.testing.assert_array_equal(received, sent)
