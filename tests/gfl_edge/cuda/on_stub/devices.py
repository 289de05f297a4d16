"""Devices by the real libraries: contexts, copies, kernels, captures."""

from __future__ import annotations

import contextlib
import threading
import time

import numpy as np
import pytest

from gfl_edge import optional
from gfl_edge.cuda import CudaLibrary, open_device
from gfl_edge.cuda.interface import CudaDevice, Launch
from gfl_edge.cuda.nvrtc import Nvrtc
from gfl_edge.cuda.source import CudaSource
from gfl_edge.errors import BackendError, MissingDependencyError
from tests.support.fake_cuda import FillParameters
from tests.support.stub_driver.library import StubDriver

FILL = CudaSource(
    "fill.cu",
    'extern "C" __global__ void fill(unsigned char value, unsigned char *to, int count) {'
    "if (threadIdx.x < count) to[threadIdx.x] = value; }",
)


def available(library: CudaLibrary) -> bool:
    return optional.available({"cuda-python": "cuda.bindings.driver", "pycuda": "pycuda.driver"}[library])


@pytest.fixture(scope="module")
def fill() -> bytes:
    return Nvrtc().compile(FILL, "sm75")


class TestBothLibraries:
    def test_there_and_back(self, device: CudaDevice, stub: StubDriver) -> None:
        with device.active():
            stream = device.create_stream()
            sent, received = device.pinned_empty((3, 4), np.float32), device.pinned_empty((3, 4), np.float32)
            address = device.malloc(sent.nbytes)
            sent[:], received[:] = np.arange(12).reshape(3, 4), -1
            device.copy_to_device(address, sent, stream)
            device.copy_to_host(received, address, stream)
            assert (received == -1).all()
            assert stub.count("queued") == 2
            device.synchronize(stream)
            np.testing.assert_array_equal(received, sent)
            device.free(address)
            device.destroy_stream(stream)

    def test_a_kernel(self, device: CudaDevice, fill: bytes) -> None:
        with device.active():
            stream, found, address = device.create_stream(), device.pinned_empty((8,), np.uint8), device.malloc(8)
            module = device.load_module(fill)
            device.memset(address, 9, 8, stream)
            function = device.get_function(module, "fill")
            device.launch(function, Launch((1, 1, 1), (8, 1, 1)), FillParameters(7, address, 6), stream)
            device.copy_to_host(found, address, stream)
            device.synchronize(stream)
            assert found.tolist() == [7] * 6 + [9] * 2
            with pytest.raises(BackendError, match=r"not found"):
                device.get_function(module, "fil")
            device.unload_module(module)
            device.free(address)
            device.destroy_stream(stream)

    def test_memory_that_does_not_fit(self, device: CudaDevice) -> None:
        with device.active(), pytest.raises(BackendError, match=r"no room for 1099511627776 bytes of device memory"):
            device.malloc(1 << 40)

    def test_an_image_of_another_gpu(self, device: CudaDevice) -> None:
        with device.active(), pytest.raises(BackendError, match=r"no kernel image"):
            device.load_module(Nvrtc().compile(FILL, "sm86"))


class TestOldDriver:
    """A driver of CUDA 12 takes no machine code of a CUDA 13 compiler."""

    def test_what_it_refuses_is_not_compiled(self, cuda_python: CudaDevice, stub: StubDriver, fill: bytes) -> None:
        with contextlib.suppress(MissingDependencyError):  # there may be no other compiler
            fill = Nvrtc("12.6").compile(FILL, "sm75")
            stub.set("driver_version", 12060)
        with cuda_python.active():
            cuda_python.unload_module(cuda_python.load_module(fill))
        stub.set("driver_version", 13000)

    def test_machine_code_of_cuda_13(self, cuda_python: CudaDevice, stub: StubDriver, fill: bytes) -> None:
        if not Nvrtc().version.startswith("NVRTC 13"):
            pytest.skip("there is no compiler of CUDA 13")
        stub.set("driver_version", 12060)
        with cuda_python.active(), pytest.raises(BackendError, match="image is invalid"):
            cuda_python.load_module(fill)
        stub.set("driver_version", 13000)


class TestCapture:
    def test_a_graph_runs_when_it_is_launched(self, cuda_python: CudaDevice, fill: bytes) -> None:
        device = cuda_python
        with device.active():
            stream, found, address = device.create_stream(), device.pinned_empty((8,), np.uint8), device.malloc(8)
            module = device.load_module(fill)
            function, found[:] = device.get_function(module, "fill"), 0

            def queue() -> None:
                device.launch(function, Launch((1, 1, 1), (8, 1, 1)), FillParameters(7, address, 8), stream)
                device.copy_to_host(found, address, stream)

            graph = device.capture(stream, queue)
            device.synchronize(stream)
            assert not found.any()
            for _ in range(2):
                found[:] = 0
                device.launch_graph(graph, stream)
                device.synchronize(stream)
                assert found.tolist() == [7] * 8
            device.destroy_graph(graph)
            device.unload_module(module)
            device.free(address)
            device.destroy_stream(stream)

    def test_what_a_capture_forbids(self, cuda_python: CudaDevice) -> None:
        with cuda_python.active():
            stream = cuda_python.create_stream()
            for forbidden in (lambda: cuda_python.malloc(8), lambda: cuda_python.synchronize(stream)):
                with pytest.raises(BackendError, match="CAPTURE"):
                    cuda_python.capture(stream, forbidden)
            cuda_python.synchronize(stream)  # it is as it was
            cuda_python.destroy_stream(stream)

    def test_what_is_freed_meanwhile_waits(self, cuda_python: CudaDevice, stub: StubDriver) -> None:
        """As the garbage collector does, of arrays and devices that have nothing to do with the capture."""
        with cuda_python.active():
            stream, other = cuda_python.create_stream(), cuda_python.create_stream()
            pinned, address = [cuda_python.pinned_empty((8,), np.uint8)], cuda_python.malloc(8)
            target = cuda_python.malloc(8)

            def queue() -> None:
                pinned.clear()
                cuda_python.free(address)
                cuda_python.destroy_stream(other)
                assert (stub.count("pinned"), stub.count("device"), stub.count("streams")) == (1, 2, 2)
                cuda_python.memset(target, 1, 8, stream)

            graph = cuda_python.capture(stream, queue)
            assert (stub.count("pinned"), stub.count("device"), stub.count("streams")) == (0, 1, 1)
            cuda_python.destroy_graph(graph)
            cuda_python.free(target)
            cuda_python.destroy_stream(stream)


class TestContexts:
    def test_one_for_the_process(self, stub: StubDriver) -> None:
        """And it stays, since TensorRT's objects and arrays may outlive the devices: memory is there as before."""
        libraries: list[CudaLibrary] = [name for name in ("cuda-python", "pycuda") if available(name)]
        for name in libraries * 3:
            device = open_device(name)
            with device.active():
                assert stub.count("stack") == 1
                device.free(device.malloc(8))
            assert stub.count("stack") == 0
            del device
        assert stub.count("references") == len(libraries)
        assert "cuDevicePrimaryCtxRelease" not in stub.calls

    def test_memory_outlives_the_device(self, device: CudaDevice, stub: StubDriver) -> None:
        with device.active():
            array = device.pinned_empty((4,), np.int32)
        array[:] = 7
        view = array[1:3]
        del device, array
        assert view.tolist() == [7, 7]
        del view
        assert stub.count("pinned") == 0

    def test_looking_at_a_gpu_takes_no_memory_of_it(self, device: CudaDevice, stub: StubDriver) -> None:
        assert (device.name, device.compute_capability) == ("Stub RTX 2080 Ti", "sm75")
        assert device.pci_bus_id == "0000:0B:00.0"
        assert "cuDevicePrimaryCtxRetain" not in stub.calls

    def test_the_last_context_is_current_again(self, device: CudaDevice, stub: StubDriver) -> None:
        with device.active(), device.active():
            assert stub.count("stack") >= 1
        with pytest.raises(ZeroDivisionError), device.active():
            raise ZeroDivisionError
        assert stub.count("stack") == 0


class TestThreads:
    def test_waiting_lets_other_threads_run(self, cuda_python: CudaDevice, stub: StubDriver) -> None:
        with cuda_python.active():
            stream = cuda_python.create_stream()
            turns, stop = [0], threading.Event()

            def count() -> None:
                while not stop.is_set():
                    turns[0] += 1
                    time.sleep(0.005)

            stub.set("sleep_ms", 300)
            other = threading.Thread(target=count)
            other.start()
            before = turns[0]
            cuda_python.synchronize(stream)
            during = turns[0] - before
            stop.set()
            other.join()
            stub.set("sleep_ms", 0)
            cuda_python.destroy_stream(stream)
        assert during > 10, "the library holds Python's lock while it waits: cuda-python 12.6 to 12.9.0 do"

    def test_a_context_on_another_thread(self, device: CudaDevice, stub: StubDriver) -> None:
        def work() -> None:
            with device.active():
                device.free(device.malloc(8))
            found.append(stub.count("stack"))

        found: list[int] = []
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert found == [0]
