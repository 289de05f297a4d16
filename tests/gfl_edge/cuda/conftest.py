"""Both CUDA libraries, fake and as devices."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from gfl_edge.cuda import open_device
from gfl_edge.cuda.interface import CudaDevice
from tests.support.fake_cuda import FakeDriver, FakePycuda


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> FakeDriver:
    fake = FakeDriver()
    monkeypatch.setattr("gfl_edge.cuda.cuda_python.load_driver", lambda: fake)
    return fake


@pytest.fixture
def pycuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakePycuda]:
    fake = FakePycuda()
    monkeypatch.setitem(sys.modules, "pycuda.driver", fake)
    yield fake
    fake.fails.clear()


@pytest.fixture(params=["cuda-python", "pycuda"])
def device(request: pytest.FixtureRequest, driver: FakeDriver, pycuda: FakePycuda) -> CudaDevice:
    return open_device(request.param)


@pytest.fixture
def fake(device: CudaDevice, driver: FakeDriver, pycuda: FakePycuda) -> FakeDriver | FakePycuda:
    """The library that ``device`` calls."""
    return driver if device.library == "cuda-python" else pycuda
