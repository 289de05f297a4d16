"""Engines through the real libraries: a fake TensorRT queues on streams of the driver, and kernels are emulated."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gfl_edge import Detector, optional
from gfl_edge.backends.tensorrt import TensorRTBackend
from gfl_edge.cuda import CudaLibrary
from gfl_edge.engine.sidecar import Sidecar
from gfl_edge.spec import ModelSpec
from tests.support.fake_tensorrt import FakeTensorRT, engine_file
from tests.support.stub_driver.library import StubDriver
from tests.support.stub_driver.memory import StubGpu
from tests.support.tiny_engine import DECODED, HW, RAW_HALF, VERSION, WITHOUT_NMS, random_frames, write_engine

Load = Callable[..., TensorRTBackend]


@pytest.fixture(params=["cuda-python", "pycuda"])
def cuda(request: pytest.FixtureRequest) -> CudaLibrary:
    if not optional.available({"cuda-python": "cuda.bindings.driver", "pycuda": "pycuda.driver"}[request.param]):
        pytest.skip(f"{request.param} is not installed")
    return request.param


@pytest.fixture
def gpu(stub: StubDriver) -> Iterator[StubGpu]:
    gpu = StubGpu(stub)
    yield gpu
    assert not gpu.failures


@pytest.fixture
def load(gpu: StubGpu, cuda: CudaLibrary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    library = FakeTensorRT(gpu, "tensorrt", VERSION)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "tensorrt", library)
    monkeypatch.setenv("GFL_EDGE_CACHE", str(tmp_path / "cache"))

    def load(spec: ModelSpec = DECODED, **arguments: Any) -> TensorRTBackend:
        sidecar = Sidecar("tensorrt", VERSION, ("sm75",), 3, "0" * 64, "", spec, 1.0, 1, 0)
        engine = write_engine(tmp_path / "tiny.engine", engine_file(spec, 3), sidecar)
        return TensorRTBackend(engine, cuda=cuda, **arguments)

    return load


@WITHOUT_NMS
def test_the_kernels_find_what_the_host_finds(load: Load, spec: ModelSpec) -> None:
    """Call by call, captured and replayed; the frames have the input's size, so that resizing changes nothing."""
    on_gpu, on_host = load(spec), load(spec, nms="host")
    assert on_gpu.nms_place == "kernels"
    with Detector(on_gpu) as detector, Detector(on_host) as host:
        for seed in range(3):
            frames = random_frames(HW, HW, seed=seed)
            for found, expected in zip(detector.detect_batch(frames), host.detect_batch(frames), strict=True):
                assert len(found) == len(expected) > 0
                np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-3)
                np.testing.assert_allclose(found.scores, expected.scores, atol=1e-6)
                np.testing.assert_array_equal(found.class_ids, expected.class_ids)


def test_frames_of_all_sizes_replay_one_graph(load: Load, stub: StubDriver, cuda: CudaLibrary) -> None:
    backend, alone = load(RAW_HALF), load(RAW_HALF, cuda_graphs=False)
    for seed, size in enumerate([(40, 50), (90, 30), (64, 128), (64, 128), (31, 77)]):
        frames = random_frames(size, seed=seed)
        expected = {name: array.copy() for name, array in alone.run_frames(frames, HW)[0].items()}
        for name, array in backend.run_frames(frames, HW)[0].items():
            np.testing.assert_array_equal(array, expected[name])
    captures = cuda == "cuda-python"
    assert stub.calls.count("cuStreamBeginCapture") == captures
    assert stub.calls.count("cuGraphLaunch") == 4 * captures
    backend.close()
    alone.close()


def test_stages_of_replayed_runs_have_times(load: Load) -> None:
    backend = load()
    backend.time_stages()
    for _ in range(3):
        backend.run_frames(random_frames((40, 50)), HW)
        assert list(backend.stage_ms) == ["upload", "resize", "network", "nms", "download"]
        assert min(backend.stage_ms.values()) >= 1  # a millisecond for each piece of work
    backend.close()


def test_a_dropped_detector_leaves_nothing(load: Load, stub: StubDriver) -> None:
    for _ in range(2):  # the second after the first is gone
        backend = load()
        for _ in range(3):
            backend.run_frames(random_frames((40, 50)), HW)
        assert stub.count("device") > 0
        del backend
        assert not stub.left()


def test_frames_under_way_give_what_each_alone_gives(load: Load, stub: StubDriver) -> None:
    batches = [random_frames((40 + 7 * seed, 50), seed=seed) for seed in range(6)]
    with Detector(load()) as alone, Detector(load(performance="throughput")) as detector:
        expected = [alone.detect_batch(frames) for frames in batches]
        assert detector.in_flight == 2
        for found, (wanted,) in zip(detector.infer_all(map(detector.prepare, batches)), expected, strict=True):
            (detections,) = found.detections
            np.testing.assert_array_equal(detections.boxes, wanted.boxes)
            assert len(detections) > 0
    assert stub.calls.count("cuStreamWaitEvent") == len(batches)
    assert not stub.left()
