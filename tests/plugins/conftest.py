"""Where the kernels run: emulated on the host, and on a GPU where there is one."""

from __future__ import annotations

import shutil
from contextlib import closing

import pytest

from benchmarks.kernels.library import DeviceLibrary, build_for_gpu
from benchmarks.kernels.production import ProductionLibrary
from gfl_edge.cuda import open_device
from tests.support import emulated_kernels

GPU_ROADS = ("nvcc", "production", "graph")
ROADS = ("emulation", *(pytest.param(road, marks=pytest.mark.gpu) for road in GPU_ROADS))


@pytest.fixture(scope="module", params=ROADS)
def library(request, tmp_path_factory):
    """The kernels by every road to them. Emulated threads go on in random order, unless a test says otherwise."""
    if request.param == "emulation":
        emulated = emulated_kernels.library()
        emulated.order("random", 0)
        yield emulated
    elif request.param == "nvcc":
        if shutil.which("nvcc") is None:
            pytest.skip("no nvcc on PATH; install the CUDA toolkit")
        yield DeviceLibrary(build_for_gpu(tmp_path_factory.mktemp("gpu")), open_device())
    else:
        device = open_device("cuda-python")
        with closing(ProductionLibrary(device, captured=request.param == "graph")) as production:
            yield production


@pytest.fixture
def emulated():
    """The emulation; its switches are put back."""
    emulation = emulated_kernels.library()
    yield emulation
    emulation.order("random", 0)
    emulation.functions.gfl_emulate_failure(-1, 0)
