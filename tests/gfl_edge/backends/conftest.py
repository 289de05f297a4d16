"""The fake TensorRT of both flavors, and engines for it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gfl_edge.backends.tensorrt import TensorRTBackend
from gfl_edge.engine.sidecar import Sidecar
from gfl_edge.spec import ModelSpec
from tests.support.fake_gpu import FakeGpu
from tests.support.fake_tensorrt import FakeTensorRT, engine_file
from tests.support.tiny_engine import SPEC, VERSION, write_engine

Load = Callable[..., TensorRTBackend]


@pytest.fixture(params=["tensorrt", "rtx"])
def flavor(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def trt(flavor: Any, gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeTensorRT:
    monkeypatch.setenv("GFL_EDGE_CACHE", str(tmp_path / "cache"))
    library = FakeTensorRT(gpu, flavor, VERSION)
    monkeypatch.setitem(sys.modules, library.__name__, library)
    return library


@pytest.fixture
def engine(flavor: Any, trt: FakeTensorRT, tmp_path: Path) -> Callable[[ModelSpec], Path]:
    def write(spec: ModelSpec) -> Path:
        sidecar = Sidecar(flavor, VERSION, ("sm75",), 3, "0" * 64, "", spec, 1.0, 9, 0)
        return write_engine(tmp_path / "tiny.engine", engine_file(spec, 3), sidecar)

    return write


@pytest.fixture
def load(engine: Callable[[ModelSpec], Path]) -> Load:
    return lambda spec=SPEC, **arguments: TensorRTBackend(engine(spec), **arguments)
