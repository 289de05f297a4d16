"""The benchmark's times of single kernels, on a fake GPU: what is queued for each of them."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from contextlib import closing

import numpy as np
import pytest

from benchmarks.kernels import times as kernel_times
from benchmarks.kernels.library import DeviceMemory, NmsCall, nms_params
from benchmarks.kernels.times import REPEATS, KernelTimer
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

    def memset(self, address: int, value: int, nbytes: int, stream: int) -> None:
        self.queued.append("memset")
        super().memset(address, value, nbytes, stream)

    def launch(self, function: int, launch: Launch, parameters: ctypes.Structure, stream: int) -> None:
        self.queued.append(self.functions[function][1])
        super().launch(function, launch, parameters, stream)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> RecordingGpu:
    monkeypatch.setattr("gfl_edge.cuda.kernels.compiled", lambda source, compute_capability: FAKE_CUBIN)
    return RecordingGpu()


@pytest.fixture
def memory(gpu: RecordingGpu) -> DeviceMemory:
    with gpu.active():
        return DeviceMemory(gpu)


def nms_call(memory: DeviceMemory, per_level: int = 0) -> NmsCall:
    random = np.random.default_rng(0)
    scores = random.uniform(0, 1, (2, ANCHORS, 3)).astype(np.float32)
    corners = random.uniform(0, 50, (2, ANCHORS, 2))
    boxes = np.concatenate((corners, corners + 20), axis=2).astype(np.float32)
    params = nms_params(scores, strides=STRIDES, input_hw=HW, per_level=per_level, max_candidates=50)
    return NmsCall(emulated_kernels.library(), memory, params, scores=scores, boxes=boxes)


@pytest.mark.parametrize("per_level", [0, 1])
def test_each_kernel_is_queued_alone(
    gpu: RecordingGpu, memory: DeviceMemory, monkeypatch: pytest.MonkeyPatch, per_level: int
) -> None:
    captured = []

    def microseconds(device: object, stream: int, queue: Callable[[], None], runs: int) -> list[float]:
        captured.append(gpu.queued.copy())
        gpu.queued.clear()
        assert len(gpu.graphs) == 1
        return [10.0 * len(captured) * REPEATS] * runs

    monkeypatch.setattr(kernel_times, "microseconds", microseconds)
    with gpu.active(), closing(KernelTimer(gpu)) as timer:
        times = timer.times_us(nms_call(memory, per_level), memory.stream)
    steps = {
        "memset and filter": ["memset", "gfl_filter_kernel"],
        "select": ["gfl_select_kernel"],
        **({"merge": ["gfl_merge_kernel"]} if per_level else {}),
        "nms": ["gfl_nms_kernel"],
    }
    assert captured == [REPEATS * names for names in steps.values()]
    assert times == {step: 10.0 * (i + 1) for i, step in enumerate(steps)}
    assert not gpu.graphs
    assert not gpu.modules


def test_kernels_alone_find_what_the_whole_call_left(
    gpu: RecordingGpu, memory: DeviceMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fake filter wants counts of zero, and the fake NMS candidates: without them the results would change."""
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
        assert timer.times_us(nms, memory.stream).keys() == {"memset and filter", "select", "nms"}
