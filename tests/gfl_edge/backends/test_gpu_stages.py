"""Frames in, detections out on a fake GPU: resize, engine, NMS and CUDA graphs together."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gfl_edge import optional
from gfl_edge.backends.tensorrt import TensorRTBackend
from gfl_edge.bench.protocols import StagedBackend
from gfl_edge.errors import BackendError, FrameError, GflEdgeError, InputError, MissingDependencyError
from gfl_edge.ops.preprocess import Nv12Frame, checked_size, resize_into
from gfl_edge.spec import INVALID_CLASS, PADDING_CLASS, ModelSpec
from tests.support.fake_gpu import FakeGpu
from tests.support.fake_tensorrt import FakeTensorRT
from tests.support.tiny_engine import (
    DECODED,
    HW,
    SPEC,
    WITHOUT_NMS,
    build_tiny,
    detections_on_host,
    random_frames,
    resized,
)

Load = Callable[..., TensorRTBackend]
WAIT = {"record_event": 1, "synchronize_event": 1}


def assert_same(found: Any, expected: Any) -> None:
    assert list(found) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def copied(outputs: Any) -> dict[str, np.ndarray]:
    return {name: array.copy() for name, array in outputs.items()}


class TestStageTimes:
    """The fake GPU takes a millisecond for each piece of work."""

    def test_a_run_of_ready_inputs(self, load: Load, gpu: FakeGpu) -> None:
        backend = load(SPEC)
        assert isinstance(backend, StagedBackend)
        backend.run(resized(random_frames((32, 64))))
        assert backend.stage_ms == {}
        backend.time_stages()
        backend.time_stages()
        for _ in range(3):  # call by call, captured, replayed
            backend.run(resized(random_frames((32, 64))))
            assert backend.stage_ms == {"upload": 1, "network": 1, "download": len(SPEC.output_names)}
        assert gpu.graphs

    @WITHOUT_NMS
    def test_frames_through_kernels(self, load: Load, spec: ModelSpec, gpu: FakeGpu) -> None:
        backend = load(spec)
        expected = copied(backend.run_frames(random_frames((40, 50), (90, 30)), HW)[0])
        backend.time_stages()
        for _ in range(3):
            outputs, _ = backend.run_frames(random_frames((40, 50), (90, 30)), HW)
            assert_same(copied(outputs), expected)
            assert list(backend.stage_ms) == ["upload", "resize", "network", "nms", "download"]
            assert backend.stage_ms["resize"] == 2  # frames
            assert backend.stage_ms["upload"] == backend.stage_ms["network"] == backend.stage_ms["download"] == 1
            assert backend.stage_ms["nms"] >= 1
        backend.run(resized(random_frames((32, 64))))
        assert "resize" not in backend.stage_ms
        backend.close()
        del outputs, _
        assert not gpu.events

    def test_a_closed_backend_is_not_timed(self, load: Load) -> None:
        backend = load(SPEC)
        backend.close()
        with pytest.raises(BackendError, match="is closed"):
            backend.time_stages()


class TestNms:
    @WITHOUT_NMS
    def test_detections_are_those_of_the_host(self, load: Load, spec: ModelSpec, gpu: FakeGpu) -> None:
        frames = random_frames((32, 64), (40, 50), (90, 30))
        expected = detections_on_host(load(spec, nms="host").run(resized(frames)), spec)
        backend = load(spec)
        for _ in range(3):  # call by call, captured, replayed
            outputs = backend.run(resized(frames))
            for i, (boxes, scores, classes) in enumerate(expected):
                count = outputs["num_dets"][i, 0]
                assert count == len(scores) > 1
                np.testing.assert_array_equal(outputs["det_boxes"][i, :count], boxes)
                np.testing.assert_array_equal(outputs["det_scores"][i, :count], scores)
                np.testing.assert_array_equal(outputs["det_classes"][i, :count], classes)
                # Some of the network's boxes are inside out
                assert np.isin(outputs["det_classes"][i, count:], (PADDING_CLASS, INVALID_CLASS)).all()

    @WITHOUT_NMS
    def test_only_detections_come_to_the_host(self, load: Load, spec: ModelSpec, gpu: FakeGpu) -> None:
        backend = load(spec, cuda_graphs=False)
        backend.run(resized(random_frames(HW, HW)))
        assert gpu.copied == [2 * 32 * 64 * 3, 4 * 256]
        assert backend.nms_place == "kernels"

    def test_batches_of_any_order_of_sizes(self, load: Load) -> None:
        backend, host = load(DECODED), load(DECODED, nms="host")
        for seed, batch in enumerate([3, 1, 1, 1, 2, 2, 2, 3]):
            images = resized(random_frames(*[HW] * batch, seed=seed))
            expected = detections_on_host(host.run(images), DECODED)
            assert backend.run(images)["num_dets"][:, 0].tolist() == [len(scores) for _, scores, _ in expected]

    def test_a_driver_that_does_not_load_the_kernels(
        self, load: Load, gpu: FakeGpu, caplog: pytest.LogCaptureFixture
    ) -> None:
        gpu.fail_in = "load_module"
        assert list(load(DECODED).run(resized(random_frames(HW)))) == ["boxes", "scores"]
        assert "does not load the kernels that Fake 1.0 compiled for sm75 (CUDA failed" in caplog.text

    def test_a_model_too_large_for_the_kernels(self, load: Load, caplog: pytest.LogCaptureFixture) -> None:
        backend = load(dataclasses.replace(DECODED, max_candidates=5000))
        assert list(backend.run(resized(random_frames(HW)))) == ["boxes", "scores"]
        assert "NMS runs on the host, since tiny has max_candidates 5000" in caplog.text
        assert backend.nms_place == "host"

    @pytest.mark.parametrize("error", [MissingDependencyError("no NVRTC"), BackendError("no NVRTC")])
    def test_no_kernels(
        self, load: Load, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: GflEdgeError
    ) -> None:
        def fail(*_: object) -> bytes:
            raise error

        monkeypatch.setattr("gfl_edge.cuda.kernels.compiled", fail)
        frames, backend = random_frames((40, 50)), load(DECODED)
        for _ in range(3):
            outputs, _ = backend.run_frames(frames, HW)
            assert_same(outputs, load(DECODED, nms="host").run(resized(frames)))
        warnings = [record.getMessage() for record in caplog.records if "tiny" in record.getMessage()]
        assert warnings[0].endswith("NMS and resizing run on the host, since the CUDA kernels cannot be used: no NVRTC")


class TestFrames:
    @pytest.mark.parametrize("rule", ["stretch", "letterbox", "fit"])
    @pytest.mark.parametrize("size", [(32, 64), (64, 128), (96, 64), (16, 16)])
    def test_they_reach_the_network_as_on_the_host(self, load: Load, rule: Any, size: tuple[int, int]) -> None:
        spec = dataclasses.replace(SPEC, resize=rule)
        backend, frames = load(spec), random_frames(size, size)
        expected = copied(backend.run(resized(frames, spec)))
        slot = np.empty((*HW, 3), np.uint8)
        for _ in range(3):
            outputs, placements = backend.run_frames(frames, HW)
            assert_same(outputs, expected)
            assert placements == [resize_into(frame, slot, rule) for frame in frames]

    @pytest.mark.parametrize("rule", ["stretch", "letterbox", "fit"])
    def test_nv12_reaches_the_network_as_on_the_host(self, load: Load, gpu: FakeGpu, rule: Any) -> None:
        spec = dataclasses.replace(SPEC, resize=rule)
        random = np.random.default_rng(0)
        frames = [
            Nv12Frame(random.integers(0, 256, (96, 128), np.uint8)),
            *random_frames((64, 128)),
            Nv12Frame(random.integers(0, 256, (30, 26), np.uint8)),
        ]
        backend = load(spec)
        for order in (frames, frames[::-1]):
            expected = copied(load(spec, cuda_graphs=False).run(resized(order, spec)))
            for _ in range(3):
                outputs, placements = backend.run_frames(order, HW)
                assert_same(outputs, expected)
                assert [placed.frame_hw for placed in placements] == [checked_size(frame) for frame in order]
        assert gpu.calls["capture"] == 1

    def test_frames_need_not_be_contiguous(self, load: Load) -> None:
        frames = [random_frames((64, 128))[0][::2, ::-2]]
        backend = load()
        expected = copied(backend.run(resized(frames)))
        assert_same(backend.run_frames(frames, HW)[0], expected)

    def test_every_frame_counts(self, load: Load) -> None:
        backend = load()
        for seed in range(5):
            frames = random_frames((64, 128), (20, 30), seed=seed)
            expected = copied(load(cuda_graphs=False).run(resized(frames)))
            assert_same(backend.run_frames(frames, HW)[0], expected)

    def test_kernels_are_loaded_with_the_first_frame(self, load: Load, gpu: FakeGpu) -> None:
        backend = load()
        backend.run(resized(random_frames(HW)))
        assert not gpu.modules
        backend.run_frames(random_frames(HW), HW)
        assert len(gpu.modules) == 1

    def test_what_is_not_an_image(self, load: Load) -> None:
        with pytest.raises(FrameError, match="gray image"):
            load().run_frames([np.zeros((9, 9), np.uint8)], HW)

    def test_more_than_the_engine_takes(self, load: Load) -> None:
        with pytest.raises(InputError, match=r"batch of 4 frames.*at most 3"):
            load().run_frames(random_frames(*[HW] * 4), HW)

    def test_another_input_size(self, load: Load) -> None:
        with pytest.raises(InputError, match=r"input is uint8 \[1, 64, 64, 3\], tiny takes"):
            load().run_frames(random_frames(HW), (64, 64))

    def test_a_closed_backend(self, load: Load) -> None:
        backend = load()
        backend.close()
        with pytest.raises(BackendError, match="closed"):
            backend.run_frames(random_frames(HW), HW)


class TestGraphs:
    def test_a_frame_is_a_copy_a_resize_a_graph_and_a_wait(self, load: Load, gpu: FakeGpu, trt: FakeTensorRT) -> None:
        backend = load(DECODED)
        for _ in range(2):
            backend.run_frames(random_frames((64, 128)), HW)
        for _ in range(2):
            gpu.calls.clear()
            trt.calls.clear()
            backend.run_frames(random_frames((64, 128)), HW)
            assert gpu.calls == {"copy_to_device": 1, "launch": 1, "launch_graph": 1, **WAIT}
            assert not trt.calls

    def test_a_folder_of_images_is_replayed(self, load: Load, gpu: FakeGpu) -> None:
        backend, alone = load(DECODED), load(DECODED, cuda_graphs=False)
        frames = [random_frames((side, 50), seed=side) for side in range(90, 20, -7)]
        for images in frames:
            expected = copied(alone.run(resized(images)))
            assert_same(backend.run_frames(images, HW)[0], expected)
        assert gpu.calls["capture"] == 1
        assert gpu.calls["launch_graph"] == len(frames) - 1  # all but the first

    def test_ready_inputs_and_frames_share_a_graph(self, load: Load, gpu: FakeGpu) -> None:
        backend = load(DECODED)
        for seed in range(3):
            frames = random_frames((40, 50), seed=seed)
            expected = copied(backend.run(resized(frames)))
            assert_same(backend.run_frames(frames, HW)[0], expected)
        assert (gpu.calls["capture"], gpu.calls["launch_graph"]) == (1, 5)

    def test_without_graphs_nothing_is_allocated_either(self, load: Load, gpu: FakeGpu) -> None:
        backend = load(DECODED, cuda_graphs=False)
        for _ in range(3):
            gpu.calls.clear()
            backend.run_frames(random_frames((64, 128)), HW)
        assert gpu.calls == {"copy_to_device": 1, "launch": 4, "copy_to_host": 1, **WAIT}

    def test_another_batch_is_another_graph(self, load: Load, gpu: FakeGpu) -> None:
        backend = load(DECODED)
        for batch in (1, 1, 2, 2, 1, 1):
            backend.run_frames(random_frames(*[HW] * batch), HW)
        assert gpu.calls["capture"] == 3
        assert len(gpu.graphs) == 1  # those of the other shape are gone, as TensorRT wants it

    def test_a_larger_frame_moves_the_memory(self, load: Load, gpu: FakeGpu) -> None:
        backend = load(DECODED)
        for size in ((10, 10), (10, 10), (100, 200), (10, 10), (10, 10), (10, 10)):
            frames = random_frames(size)
            expected = copied(load(DECODED, cuda_graphs=False).run(resized(frames)))
            assert_same(backend.run_frames(frames, HW)[0], expected)
        assert len(gpu.graphs) == 1

    def test_a_library_without_graphs(self, load: Load, gpu: FakeGpu, trt: FakeTensorRT) -> None:
        gpu.captures = False
        backend = load(DECODED)
        for _ in range(3):
            backend.run_frames(random_frames((64, 128)), HW)
        assert not gpu.calls["capture"]
        if trt.__name__ == "tensorrt_rtx":  # makes its own of the network
            assert trt.config.cuda_graph_strategy.name == "WHOLE_GRAPH_CAPTURE"

    def test_what_is_captured_holds_the_fast_kernels(self, load: Load, flavor: str, trt: FakeTensorRT) -> None:
        if flavor != "rtx":
            pytest.skip("full TensorRT builds them with the engine")
        load()
        assert trt.config.cuda_graph_strategy.name == "DISABLED"
        assert trt.config.dynamic_shapes_kernel_specialization_strategy.name == "EAGER"

    def test_an_engine_that_cannot_be_captured(
        self, load: Load, gpu: FakeGpu, trt: FakeTensorRT, caplog: pytest.LogCaptureFixture
    ) -> None:
        trt.refuse = "capture"
        backend, frames = load(DECODED), random_frames((64, 128))
        expected = copied(load(DECODED, cuda_graphs=False).run(resized(frames)))
        for _ in range(4):
            assert_same(backend.run_frames(frames, HW)[0], expected)
        assert gpu.calls["capture"] == 1
        warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
        assert ["capture failed for a good reason" in record.getMessage() for record in warnings] == [True]

    def test_tensorrt_rtx_says_that_it_cannot_be_captured(
        self, load: Load, gpu: FakeGpu, trt: FakeTensorRT, flavor: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        if flavor != "rtx":
            pytest.skip("full TensorRT does not say")
        trt.refuse = "capturable"
        backend = load(DECODED)
        for _ in range(3):
            backend.run_frames(random_frames((64, 128)), HW)
        assert not gpu.calls["capture"]
        assert trt.config.cuda_graph_strategy.name == "WHOLE_GRAPH_CAPTURE"
        assert len(trt.contexts) == 1
        (warning,) = (record.getMessage() for record in caplog.records if record.levelno == logging.WARNING)
        assert "cannot be captured into a CUDA graph with this engine" in warning
        assert "Rebuild with: gfl-edge build --model" in warning


class TestFailures:
    """Whatever fails: an error or a fallback, and nothing stays allocated."""

    def drive(self, load: Load, gpu: FakeGpu, fail_in: str, after: int) -> None:
        """Load, run and close, with one method failing from its call number ``after`` on."""
        entered = gpu._enter

        def enter(method: str) -> None:
            if gpu.calls[method] >= after and method == fail_in:
                gpu.fail_in = fail_in
            entered(method)

        gpu._enter = enter  # type: ignore[method-assign]
        backend = None
        try:
            backend = load(DECODED)
            for size in ((20, 30), (20, 30), (20, 30), (40, 50), (40, 50)):
                backend.run_frames(random_frames(size), HW)
        finally:
            if backend is not None:
                backend.close()

    @pytest.mark.parametrize("after", range(8))
    @pytest.mark.parametrize(
        "method",
        [
            *("create_stream", "malloc", "pinned_empty", "load_module", "get_function", "copy_to_device"),
            *("launch", "copy_to_host", "capture", "launch_graph", "synchronize"),
        ],
    )
    def test_nothing_is_left(self, load: Load, gpu: FakeGpu, method: str, after: int) -> None:
        with suppress(BackendError):
            self.drive(load, gpu, method, after)
        gpu.assert_nothing_left()

    def test_a_run_after_a_failed_one(self, load: Load, gpu: FakeGpu, trt: FakeTensorRT) -> None:
        backend, frames = load(DECODED), random_frames((64, 128))
        expected = copied(backend.run_frames(frames, HW)[0])
        trt.refuse = "execute"
        with pytest.raises(BackendError, match="cannot run this engine"):
            backend.run_frames(frames, HW)
        trt.refuse = ""
        assert_same(backend.run_frames(frames, HW)[0], expected)
        backend.close()
        gpu.assert_nothing_left()


@pytest.mark.gpu
@pytest.mark.parametrize("cuda", ["cuda-python", "pycuda"])
def test_a_real_gpu_finds_what_the_host_finds(tmp_path: Path, cuda: Any) -> None:
    if not optional.available({"cuda-python": "cuda.bindings.driver", "pycuda": "pycuda.driver"}[cuda]):
        pytest.skip(f"{cuda} is not installed")
    path = build_tiny(tmp_path, ("current",))
    backend, host = TensorRTBackend(path, cuda=cuda), TensorRTBackend(path, cuda=cuda, nms="host")
    assert backend.nms_place == "kernels"
    frames = random_frames((64, 128), (20, 30))
    for size_of_batch in (2, 2, 2, 1, 1):
        outputs, _ = backend.run_frames(frames[:size_of_batch], HW)
        candidates, _ = host.run_frames(frames[:size_of_batch], HW)
        for i, (boxes, scores, _) in enumerate(detections_on_host(candidates, backend.spec)):
            assert outputs["num_dets"][i, 0] == len(scores)
            np.testing.assert_array_equal(outputs["det_scores"][i, : len(scores)], scores)
            np.testing.assert_array_equal(outputs["det_boxes"][i, : len(scores)], boxes)
    backend.close()
    host.close()
