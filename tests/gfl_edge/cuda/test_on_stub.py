"""The real CUDA libraries on a stand-in for the driver: each file of ``on_stub`` runs in a process of its own.

A process that has loaded the stub has a GPU, for whatever it does, so the others must not.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gfl_edge import optional
from tests.support import emulated_kernels
from tests.support.once import once
from tests.support.required import skip_unless_required
from tests.support.stub_driver.library import build, why_not_built

HERE = Path(__file__).resolve().parent / "on_stub"
FILES = sorted(path.stem for path in HERE.glob("*.py") if path.stem != "conftest")
SLOW = ("dry_run",)


@pytest.fixture(scope="module")
def stub(shared: Path) -> Path:
    """The folder of the stub driver."""
    if reason := why_not_built():
        skip_unless_required(reason)
    return once(shared / "stub-driver", build)


@pytest.mark.skipif(not optional.available("cuda.bindings.driver"), reason="cuda-python is not installed")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in FILES]
)
def test_on_stub(name: str, stub: Path) -> None:
    path = os.pathsep.join((str(stub), os.environ.get("LD_LIBRARY_PATH", "")))
    kernels = emulated_kernels.library().path
    environment = {**os.environ, "LD_LIBRARY_PATH": path.rstrip(":"), "GFL_EDGE_STUB_KERNELS": str(kernels)}
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(HERE / f"{name}.py")]
    found = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert found.returncode == 0, f"{found.stdout[-8000:]}\n{found.stderr[-2000:]}"
