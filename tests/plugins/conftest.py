"""Where the kernels run: emulated on the host, and on a GPU where there is one."""

from __future__ import annotations

import shutil

import pytest

from benchmarks.kernels.library import DeviceLibrary, build_for_gpu
from gfl_edge.cuda import open_device
from tests.support import emulated_kernels


@pytest.fixture(scope="module", params=["emulation", pytest.param("gpu", marks=pytest.mark.gpu)])
def library(request, tmp_path_factory):
    """The kernels as they run here. Emulated threads go on in random order, unless a test says otherwise."""
    if request.param == "gpu":
        if shutil.which("nvcc") is None:
            pytest.skip("no nvcc on PATH; install the CUDA toolkit")
        return DeviceLibrary(build_for_gpu(tmp_path_factory.mktemp("gpu")), open_device())
    emulated = emulated_kernels.library()
    emulated.order("random", 0)
    return emulated


@pytest.fixture
def emulated():
    """The emulation; its switches are put back."""
    emulation = emulated_kernels.library()
    yield emulation
    emulation.order("random", 0)
    emulation.functions.gfl_emulate_failure(-1, 0)
