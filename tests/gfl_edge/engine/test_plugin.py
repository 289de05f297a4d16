"""Finding and registering TensorRT's plugin GflNms, with a stand-in for TensorRT."""

from __future__ import annotations

import dataclasses
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from gfl_edge.backends.tensorrt import TensorRTBackend
from gfl_edge.engine import build, plugin
from gfl_edge.engine.build import BuildPlan
from gfl_edge.engine.plugin import LIBRARY, VARIABLE, find_library, load_plugin
from gfl_edge.engine.sidecar import Sidecar
from gfl_edge.errors import BackendError, InputError, MissingDependencyError
from gfl_edge.spec import DETECTION_NAMES
from tests.support.fake_gpu import FakeGpu
from tests.support.fake_tensorrt import FakeTensorRT, engine_file
from tests.support.tiny_engine import SPEC, write_engine

OURS = SimpleNamespace(name="GflNms", plugin_version="1", plugin_namespace="gfl_edge")
OTHERS = [
    SimpleNamespace(name="EfficientNMS_TRT", plugin_version="1", plugin_namespace=""),
    SimpleNamespace(name="GflNms", plugin_version="0", plugin_namespace="gfl_edge"),
    SimpleNamespace(name="GflNms", plugin_version="1", plugin_namespace=""),
    SimpleNamespace(name="Foreign"),  # a creator of Python's that has not said its version
]


class FakeRegistry:
    """``IPluginRegistry``: ``inside`` is what the library that is loaded next holds; None: it cannot be loaded."""

    def __init__(self, inside=(OURS,)):
        self.all_creators = list(OTHERS)
        self.inside = inside
        self.loaded = []

    def get_creator(self, type, version, plugin_namespace=""):
        keys = {(it.name, it.plugin_version, it.plugin_namespace): it for it in self.all_creators if it.name == type}
        return keys.get((type, version, plugin_namespace))

    def load_library(self, plugin_path):
        self.loaded.append(plugin_path)
        if self.inside is None:
            return None
        self.all_creators.extend(self.inside)
        return "handle"


@pytest.fixture
def registry():
    return FakeRegistry()


@pytest.fixture(autouse=True)
def tensorrt(registry, monkeypatch, tmp_path):
    """A TensorRT with that registry, and no plugin in any of the usual places."""
    library = ModuleType("tensorrt")
    library.__file__, library.__version__ = "fake", "10.13.2"
    library.get_plugin_registry = lambda: registry
    monkeypatch.setitem(sys.modules, "tensorrt", library)
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(plugin, "PACKAGE", tmp_path / "checkout" / "gfl_edge")
    return library


def put(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


def test_loads_once(registry, tmp_path):
    library = put(tmp_path / "models" / LIBRARY)
    assert load_plugin("tensorrt", library.parent) == str(library)
    assert load_plugin("tensorrt", library.parent) == ""
    assert registry.loaded == [str(library)]


def test_what_is_registered_already_needs_no_library(registry, tmp_path):
    registry.all_creators.append(OURS)
    assert load_plugin("tensorrt", tmp_path) == ""
    assert not registry.loaded


def test_places_in_order(tmp_path, monkeypatch):
    for folder in ("checkout/plugins/build", "checkout/gfl_edge", "models"):  # the better place comes later
        library = put(tmp_path / folder / LIBRARY)
        assert find_library(tmp_path / "models") == str(library)
    named = put(tmp_path / "elsewhere" / "renamed.so")
    monkeypatch.setenv(VARIABLE, str(named))
    assert find_library(tmp_path / "models") == str(named)


def test_the_system_s_library_path_is_the_last_place(tmp_path, monkeypatch):
    monkeypatch.setattr(plugin, "_loader_error", lambda library: "")
    assert find_library(tmp_path) == LIBRARY


def test_nowhere_says_where_and_how_to_build(tmp_path):
    with pytest.raises(MissingDependencyError) as caught:
        load_plugin("tensorrt", tmp_path / "models")
    message = str(caught.value)
    for place in ("models", "checkout/gfl_edge", "checkout/plugins/build"):
        assert str(tmp_path / place) in message
    assert "system's library path" in message
    assert f"{VARIABLE} is not set" in message
    assert "cmake -S plugins -B plugins/build" in message
    assert "--nms graph" in message


def test_a_named_library_that_is_not_there(tmp_path, monkeypatch):
    put(tmp_path / LIBRARY)
    monkeypatch.setenv(VARIABLE, "/nowhere/plugin.so")
    with pytest.raises(MissingDependencyError, match=r"GFL_EDGE_PLUGIN is '/nowhere/plugin\.so', which is no file"):
        load_plugin("tensorrt", tmp_path)


def test_a_library_that_does_not_load_says_why(registry, tmp_path):
    registry.inside = None
    library = put(tmp_path / LIBRARY)  # empty, and so no library
    with pytest.raises(BackendError, match=rf"TensorRT 10\.13\.2: {library} cannot be loaded \(.*file too short\)"):
        load_plugin("tensorrt", tmp_path)


def test_a_library_without_the_plugin(registry, tmp_path):
    registry.inside = ()
    put(tmp_path / LIBRARY)
    with pytest.raises(BackendError, match="holds no GflNms version 1 of gfl_edge"):
        load_plugin("tensorrt", tmp_path)


def test_rtx_has_no_plugins(tmp_path):
    with pytest.raises(InputError, match="TensorRT-RTX takes no plugins"):
        load_plugin("rtx", tmp_path)


class RefusedError(Exception):
    """Raised by the fake builder, to end there."""


@pytest.mark.parametrize(("nms", "loads"), [("plugin", True), ("graph", False), ("none", False), ("raw", False)])
def test_a_build_loads_the_plugin_where_the_model_needs_it(nms, loads, registry, tensorrt, tmp_path, monkeypatch):
    def refuse(logger):
        raise RefusedError

    tensorrt.Builder = refuse
    monkeypatch.setattr(build, "logger_of", lambda flavor: None)
    put(tmp_path / LIBRARY)
    spec = SimpleNamespace(nms=nms)
    with pytest.raises(RefusedError):
        build._serialize(BuildPlan(tmp_path / "m.onnx", "tensorrt", ("sm87",)), spec, progress=False)
    assert bool(registry.loaded) == loads


@pytest.mark.parametrize(("nms", "loads"), [("plugin", True), ("graph", False)])
def test_an_engine_loads_the_plugin_where_it_needs_it(nms, loads, registry, tmp_path, monkeypatch):
    gpu = FakeGpu()
    library = FakeTensorRT(gpu, "tensorrt", "10.13.2")
    library.get_plugin_registry = lambda: registry
    monkeypatch.setitem(sys.modules, "tensorrt", library)
    monkeypatch.setattr("gfl_edge.backends.tensorrt.open_device", lambda prefer: gpu)
    spec = dataclasses.replace(SPEC, nms=nms)
    sidecar = Sidecar("tensorrt", "10.13.2", (gpu.compute_capability,), 1, "0" * 64, "0" * 64, spec, 1.0, 9, 0)
    engine = write_engine(tmp_path / "m.engine", engine_file(spec, 1), sidecar)
    put(tmp_path / LIBRARY)
    backend = TensorRTBackend(engine)
    assert registry.loaded == ([str(tmp_path / LIBRARY)] if loads else [])
    assert backend.run(np.zeros((1, *spec.input_hw, 3), np.uint8)).keys() == set(DETECTION_NAMES)
    backend.close()


def test_an_engine_without_its_plugin_says_what_is_missing(tmp_path, monkeypatch):
    gpu = FakeGpu()
    library = FakeTensorRT(gpu, "tensorrt", "10.13.2")
    library.get_plugin_registry = FakeRegistry
    monkeypatch.setitem(sys.modules, "tensorrt", library)
    spec = dataclasses.replace(SPEC, nms="plugin")
    sidecar = Sidecar("tensorrt", "10.13.2", (gpu.compute_capability,), 1, "0" * 64, "0" * 64, spec, 1.0, 9, 0)
    engine = write_engine(tmp_path / "m.engine", engine_file(spec, 1), sidecar)
    with pytest.raises(MissingDependencyError, match="needs TensorRT's plugin GflNms"):
        TensorRTBackend(engine)
    assert not gpu.calls
