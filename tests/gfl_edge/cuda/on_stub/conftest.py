"""The stub driver and, on it, the real CUDA libraries; ``tests/gfl_edge/cuda/test_on_stub.py`` runs what is here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gfl_edge.cuda import open_device
from gfl_edge.cuda.interface import CudaDevice
from gfl_edge.errors import MissingDependencyError
from tests.support.stub_driver.library import StubDriver


@pytest.fixture
def stub() -> Iterator[StubDriver]:
    """The driver, of which every test gives back what it took."""
    driver = StubDriver()
    driver.clear_calls()
    yield driver
    assert not driver.left()


@pytest.fixture(params=["cuda-python", "pycuda"])
def device(request: pytest.FixtureRequest, stub: StubDriver) -> CudaDevice:
    try:
        return open_device(request.param)
    except MissingDependencyError as error:
        pytest.skip(str(error))


@pytest.fixture
def cuda_python(stub: StubDriver) -> CudaDevice:
    return open_device("cuda-python")
