"""Several runs under way on a fake GPU, whose streams do nothing before somebody waits for it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gfl_edge import Detector
from gfl_edge.backends.base import OverlappingFrameBackend
from gfl_edge.backends.tensorrt import IN_FLIGHT, TensorRTBackend
from gfl_edge.errors import BackendError
from gfl_edge.spec import ModelSpec
from tests.support.fake_gpu import FakeGpu
from tests.support.fake_tensorrt import FakeTensorRT
from tests.support.tiny_engine import DECODED, HW, RAW, SPEC, WITHOUT_NMS, random_frames

Load = Callable[..., TensorRTBackend]
SPECS = pytest.mark.parametrize("spec", [SPEC, DECODED, RAW], ids=["graph", "none", "raw"])
SIZES = [(40, 50), (90, 30), (64, 128), (64, 128), (31, 77), (400, 300), (20, 20)]


def copied(outputs: Any) -> dict[str, np.ndarray]:
    return {name: array.copy() for name, array in outputs.items()}


def frames_of(count: int) -> list[list[np.ndarray]]:
    return [
        random_frames(*[SIZES[(seed + i) % len(SIZES)] for i in range(1 + seed % 2)], seed=seed)
        for seed in range(count)
    ]


@SPECS
def test_runs_under_way_give_what_each_alone_gives(load: Load, spec: ModelSpec, gpu: FakeGpu) -> None:
    backend, alone = load(spec, performance="throughput"), load(spec)
    assert isinstance(backend, OverlappingFrameBackend)
    assert (backend.in_flight, alone.in_flight) == (IN_FLIGHT, 1) == (2, 1)
    batches, under_way = frames_of(12), []
    expected = [copied(alone.run_frames(frames, HW)[0]) for frames in batches]
    for index, frames in enumerate(batches):
        under_way.append((index, backend.begin_frames(frames, HW)[0]))
        for image in frames:
            image[:] = 0  # it was copied
        if len(under_way) == IN_FLIGHT:
            assert_over(*under_way.pop(0), expected)
    assert_over(*under_way.pop(), expected)
    backend.close()
    alone.close()
    gpu.assert_nothing_left()


def assert_over(index: int, begun: Any, expected: list[dict[str, np.ndarray]]) -> None:
    for _ in range(2):  # asked twice
        for name, array in begun.outputs().items():
            np.testing.assert_array_equal(array, expected[index][name], err_msg=f"{index} {name}")
    begun.release()
    begun.release()


def test_a_copy_waits_for_nobody(load: Load, gpu: FakeGpu) -> None:
    """What brings the next frame to the GPU is on a stream of its own, which the network does not hold up."""
    backend = load(DECODED, performance="throughput")
    for _ in range(2):  # until everything is settled
        backend.run_frames(random_frames((40, 50)), HW)
    gpu.calls.clear()
    first, _ = backend.begin_frames(random_frames((40, 50)), HW)
    before = {stream: len(queued) for stream, queued in gpu.streams.items()}
    second, _ = backend.begin_frames(random_frames((40, 50)), HW)
    added = {stream: len(queued) - before[stream] for stream, queued in gpu.streams.items()}
    assert sorted(added.values())[0] == 2  # the copy, and the event after it
    assert not gpu.calls["synchronize"]
    first.outputs()
    assert any(gpu.streams.values()), "waiting for the first run has to leave the second"
    second.outputs()
    assert not any(gpu.streams.values())


def test_a_third_run_waits_until_another_thread_releases_one(load: Load) -> None:
    backend = load(DECODED, performance="throughput")
    begun = [backend.begin_frames(random_frames((40, 50)), HW)[0] for _ in range(IN_FLIGHT)]
    third: list[Any] = []
    thread = threading.Thread(target=lambda: third.append(backend.begin_frames(random_frames((40, 50)), HW)[0]))
    thread.start()
    thread.join(0.05)
    assert thread.is_alive()
    begun[0].release()  # without asking for what it gave
    thread.join(10)
    assert not thread.is_alive()
    assert third[0].outputs()["num_dets"].shape == (1, 1)


@WITHOUT_NMS
def test_all_frames_through_a_detector(load: Load, spec: ModelSpec) -> None:
    with Detector(load(spec)) as alone, Detector(load(spec, performance="throughput")) as detector:
        assert (alone.in_flight, detector.in_flight) == (1, 2)
        found = list(detector.infer_all(map(detector.prepare, frames_of(9))))
        for inference, frames in zip(found, frames_of(9), strict=True):
            for one, other in zip(inference.detections, alone.detect_batch(frames), strict=True):
                np.testing.assert_array_equal(one.boxes, other.boxes)
                np.testing.assert_array_equal(one.scores, other.scores)
        assert any(len(one) for inference in found for one in inference.detections)


def test_a_run_between(load: Load) -> None:
    """Frames that are under way do not disturb what is run meanwhile, and the other way round."""
    backend, alone = load(DECODED, performance="throughput"), load(DECODED)
    frames, images = random_frames((40, 50), seed=3), np.stack(random_frames(HW, HW, seed=4))
    expected = copied(alone.run_frames(frames, HW)[0]), copied(alone.run(images))
    for _ in range(4):
        begun, _ = backend.begin_frames(frames, HW)
        between = copied(backend.run(images))
        for found, wanted in ((copied(begun.outputs()), expected[0]), (between, expected[1])):
            for name, array in found.items():
                np.testing.assert_array_equal(array, wanted[name])
        begun.release()


def test_stages_are_timed_by_run(load: Load) -> None:
    backend = load(DECODED, performance="throughput")
    backend.time_stages()
    for _ in range(3):
        begun = [backend.begin_frames(random_frames((40, 50)), HW)[0] for _ in range(2)]
        for each in begun:
            each.outputs()
            assert list(backend.stage_ms) == ["upload", "resize", "network", "nms", "download"]
            each.release()


class TestFailures:
    @pytest.mark.parametrize("method", ["copy_to_device", "launch", "record_event", "wait_for_event", "launch_graph"])
    def test_a_run_that_cannot_begin_gives_its_place_back(self, load: Load, gpu: FakeGpu, method: str) -> None:
        backend = load(DECODED, performance="throughput")
        for _ in range(3):
            backend.run_frames(random_frames((40, 50)), HW)
        for _ in range(2 * IN_FLIGHT):
            gpu.fail_in = method
            with pytest.raises(BackendError, match="CUDA failed"):
                backend.begin_frames(random_frames((40, 50)), HW)
            gpu.fail_in = ""
        assert backend.run_frames(random_frames((40, 50)), HW)[0]["num_dets"].shape == (1, 1)
        backend.close()
        gpu.assert_nothing_left()

    def test_a_run_that_fails_gives_its_place_back(self, load: Load, gpu: FakeGpu) -> None:
        backend = load(DECODED, performance="throughput")
        for _ in range(2 * IN_FLIGHT):
            begun, _ = backend.begin_frames(random_frames((40, 50)), HW)
            gpu.fail_in = "synchronize_event"
            with pytest.raises(BackendError, match="CUDA failed in synchronize_event"):
                begun.outputs()
            begun.release()
            gpu.fail_in = ""
        backend.close()
        gpu.assert_nothing_left()

    def test_closed_with_runs_under_way(self, load: Load, gpu: FakeGpu) -> None:
        backend = load(DECODED, performance="throughput")
        begun = [backend.begin_frames(random_frames((40, 50)), HW)[0] for _ in range(2)]
        backend.close()
        for each in begun:
            with pytest.raises(BackendError, match="is closed"):
                each.outputs()
            each.release()
        with pytest.raises(BackendError, match="is closed"):
            backend.begin_frames(random_frames((40, 50)), HW)
        gpu.assert_nothing_left()

    def test_an_engine_that_cannot_run(self, load: Load, trt: FakeTensorRT) -> None:
        backend = load(DECODED, performance="throughput")
        trt.refuse = "execute"
        for _ in range(2 * IN_FLIGHT):
            with pytest.raises(BackendError, match="cannot run this engine"):
                backend.begin_frames(random_frames((40, 50)), HW)
