"""The benchmark's times of single kernels, on a fake GPU: what is queued for each of them."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from contextlib import closing

import numpy as np
import pytest

from benchmarks.kernels import times as kernel_times
from benchmarks.kernels import variants
from benchmarks.kernels.library import NmsCall, nms_params
from benchmarks.kernels.memory import DeviceMemory
from benchmarks.kernels.times import REPEATS, STEPS, KernelTimer
from gfl_edge.cuda import kernels
from gfl_edge.cuda.interface import Launch
from gfl_edge.cuda.kernels import Kernels
from tests.support import emulated_kernels
from tests.support.fake_gpu import FAKE_CUBIN, FakeGpu

HW, STRIDES = (64, 96), (8, 16)
ANCHORS = 8 * 12 + 4 * 6


class RecordingGpu(FakeGpu):
    """Also records by name what is queued."""

    def __init__(self) -> None:
        super().__init__()
        self.queued: list[str] = []

    def launch(self, function: int, launch: Launch, parameters: ctypes.Structure, stream: int) -> None:
        self.queued.append(self.functions[function][1])
        super().launch(function, launch, parameters, stream)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> RecordingGpu:
    monkeypatch.setattr("gfl_edge.cuda.kernels.compiled", lambda *_: FAKE_CUBIN)
    return RecordingGpu()


@pytest.fixture
def memory(gpu: RecordingGpu) -> DeviceMemory:
    with gpu.active():
        return DeviceMemory(gpu)


def nms_call(memory: DeviceMemory) -> NmsCall:
    random = np.random.default_rng(0)
    scores = random.uniform(0, 1, (2, ANCHORS, 3)).astype(np.float32)
    corners = random.uniform(0, 50, (2, ANCHORS, 2))
    boxes = np.concatenate((corners, corners + 20), axis=2).astype(np.float32)
    params = nms_params(scores, strides=STRIDES, input_hw=HW, max_candidates=50)
    return NmsCall(emulated_kernels.library(), memory, params, scores=scores, boxes=boxes)


def test_each_kernel_is_queued_alone(gpu: RecordingGpu, memory: DeviceMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    captured = []

    def microseconds(device: object, stream: int, queue: Callable[[], None], runs: int) -> list[float]:
        captured.append(gpu.queued.copy())
        gpu.queued.clear()
        assert len(gpu.graphs) == 1
        return [10.0 * len(captured) * REPEATS] * runs

    monkeypatch.setattr(kernel_times, "microseconds", microseconds)
    with gpu.active(), closing(KernelTimer(gpu)) as timer:
        times = timer.times_us(nms_call(memory), memory.stream)
    queued = ["filter", "rank", "suppress"]
    assert captured == [REPEATS * [f"gfl_{step}_kernel"] for step in queued]
    assert times == {"filter": 10.0, "rank": 20.0, "suppress": 30.0}
    assert not gpu.graphs
    assert not gpu.modules


def test_variants_have_other_constants() -> None:
    before = kernels._constants()
    with variants.constants({"SUPPRESS_THREADS": 512}):
        assert kernels._constants() == {**before, "SUPPRESS_THREADS": 512}
        assert "#define GFL_SUPPRESS_THREADS 512\n" in kernels.kernel_source().headers["gfl_common.cuh"]
    assert kernels._constants() == before
    with pytest.raises(ValueError, match="GFL_NOTHING"), variants.constants({"NOTHING": 1}):
        pass


def test_kernels_alone_find_what_the_whole_call_left(
    gpu: RecordingGpu, memory: DeviceMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fakes want what the kernels before them wrote: without it the results would change."""
    with gpu.active(), closing(Kernels(gpu)) as kernels, closing(KernelTimer(gpu)) as timer:
        nms = nms_call(memory)
        kernels.nms(nms.params, *nms.addresses(), nms.workspace, memory.stream)
        expected = nms.results()
        assert (expected["num_dets"] > 1).all()

        def microseconds(device: object, stream: int, queue: Callable[[], None], runs: int) -> list[float]:
            queue()
            for name, array in nms.results().items():
                np.testing.assert_array_equal(array, expected[name])
            return [1.0] * runs

        monkeypatch.setattr(kernel_times, "microseconds", microseconds)
        assert timer.times_us(nms, memory.stream).keys() == set(STEPS)
