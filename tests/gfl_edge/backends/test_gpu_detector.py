"""Detectors and the camera on a fake GPU, beside what they find with NMS on the host."""

from __future__ import annotations

import dataclasses
import itertools
import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gfl_edge import Detector
from gfl_edge.backends.base import FrameBackend
from gfl_edge.backends.tensorrt import TensorRTBackend
from gfl_edge.camera import run_camera
from gfl_edge.cuda.kernels import resize_params
from gfl_edge.detector import Inference
from gfl_edge.errors import BackendError, InputError
from gfl_edge.filters import DetectionFilter
from gfl_edge.ops.preprocess import place_frame
from gfl_edge.spec import ModelSpec
from tests.support.fake_gpu import FakeGpu
from tests.support.fake_sources import FakeSource, Sources
from tests.support.fake_tensorrt import FakeTensorRT
from tests.support.tiny_engine import DECODED, HW, RAW, SPEC, WITHOUT_NMS, random_frames

Load = Callable[..., TensorRTBackend]
# And a launch each, which resizes
FRAMES = {"copy_to_device": 1, "launch_graph": 1, "record_event": 1, "synchronize_event": 1}


class TestDynamicSize:
    SPEC = dataclasses.replace(DECODED, resize="fit", input_hw=(320, 320), short_long=(320, 352), strides=(64,))

    def test_every_size_gives_what_the_host_finds(self, engine: Any, gpu: FakeGpu) -> None:
        path = engine(self.SPEC)
        host, detector = Detector(path, nms="host"), Detector(path)
        for size in ((320, 320), (320, 352), (352, 320), (352, 320), (352, 320), (320, 320)):
            (frame,) = random_frames(size)
            found, expected = detector(frame), host(frame)
            assert len(found) == len(expected) > 0
            np.testing.assert_array_equal(found.boxes, expected.boxes)

    def test_tensorrt_rtx_makes_the_graphs(self, load: Load, gpu: FakeGpu, trt: FakeTensorRT, flavor: str) -> None:
        backend = load(self.SPEC)
        for _ in range(3):
            backend.run_frames(random_frames((320, 320)), (320, 320))
        assert gpu.calls["capture"] == (flavor == "tensorrt")
        if flavor == "rtx":
            assert trt.config.cuda_graph_strategy.name == "WHOLE_GRAPH_CAPTURE"
            assert trt.config.dynamic_shapes_kernel_specialization_strategy.name == "LAZY"


class TestDetector:
    @WITHOUT_NMS
    @pytest.mark.parametrize("rule", ["stretch", "letterbox", "fit", "stretch-cubic"])
    def test_the_gpu_finds_what_the_host_finds(self, engine: Any, rule: Any, spec: ModelSpec) -> None:
        path = engine(dataclasses.replace(spec, resize=rule))
        frames = random_frames((64, 128), (32, 32), (96, 64))
        host, detector = Detector(path, nms="host"), Detector(path)
        assert isinstance(detector.backend, FrameBackend)
        for _ in range(3):
            batches = detector.detect_batch(frames), host.detect_batch(frames)
            assert sum(map(len, batches[0])) > 1
            for found, expected in zip(*batches, strict=True):
                assert len(found) == len(expected)
                np.testing.assert_array_equal(found.boxes, expected.boxes)
                np.testing.assert_array_equal(found.scores, expected.scores)
                np.testing.assert_array_equal(found.class_ids, expected.class_ids)

    def test_what_the_kernels_cannot_resize_the_host_does(self, engine: Any, caplog: Any, gpu: FakeGpu) -> None:
        spec = dataclasses.replace(DECODED, resize="stretch-cubic")
        detector = Detector(engine(spec))
        with caplog.at_level("INFO"):
            for _ in range(2):
                detector(random_frames((96, 64))[0])
        assert caplog.text.count("resizing (stretch-cubic) runs on the host: the kernels are bilinear") == 1
        with pytest.raises(BackendError, match="needs stretch-cubic"):
            resize_params(spec, place_frame((96, 64), HW, "stretch-cubic"), HW)

    @WITHOUT_NMS
    def test_and_is_as_sure_of_it(self, engine: Any, spec: ModelSpec) -> None:
        path = engine(dataclasses.replace(spec, edge_sigma=True, sigma_scale=(0.5, 1, 2, 3)))
        frames = random_frames((64, 128), (32, 32))
        host, detector = Detector(path, nms="host"), Detector(path)
        for _ in range(3):  # by calls, then as a graph
            for found, expected in zip(detector.detect_batch(frames), host.detect_batch(frames), strict=True):
                assert len(found) == len(expected) > 1
                np.testing.assert_array_equal(found.boxes, expected.boxes)
                assert found.edge_sigma is not None
                assert expected.edge_sigma is not None
                assert found.edge_sigma.any()
                np.testing.assert_array_equal(found.edge_sigma, expected.edge_sigma)

    def test_an_engine_with_nms_gives_its_own(self, engine: Any) -> None:
        backend = Detector(engine(dataclasses.replace(SPEC, edge_sigma=True))).backend
        outputs = backend.run(np.full((2, *HW, 3), 3, np.uint8))
        assert outputs["det_sigmas"].shape == (2, SPEC.max_detections, 4)
        assert (outputs["det_sigmas"] == 7).all()  # the fifth output of the fake engine

    def test_results_survive_the_next_call(self, engine: Any) -> None:
        detector = Detector(engine(DECODED))
        first = detector(random_frames((64, 128))[0])
        kept = first.boxes.copy()
        detector(random_frames((64, 128), seed=1)[0])
        np.testing.assert_array_equal(first.boxes, kept)

    def test_stages_are_timed(self, engine: Any) -> None:
        detector = Detector(engine(DECODED))
        ms = detector.infer(detector.prepare([random_frames(HW)[0]])).ms
        assert list(ms) == ["preprocess", "network", "postprocess"]

    @pytest.mark.parametrize(("spec", "nms"), [(DECODED, "graph"), (RAW, "graph"), (SPEC, "host")])
    def test_nms_that_the_engine_does_not_hold(self, engine: Any, spec: ModelSpec, nms: Any) -> None:
        with pytest.raises(InputError, match=f"built with NMS '{spec.nms}', '{nms}' was requested"):
            Detector(engine(spec), nms=nms)


class TestCamera:
    """Several sources on one GPU."""

    @pytest.fixture
    def sources(self, monkeypatch: pytest.MonkeyPatch) -> Sources:
        return Sources(monkeypatch)

    def test_frames_of_all_sources_run_as_one(
        self, engine: Any, gpu: FakeGpu, sources: Sources, tmp_path: Path
    ) -> None:
        path = engine(DECODED)
        sizes = [(40, 50), (64, 128), (32, 64)]
        names = sources.add(*(FakeSource(f"s{i}", 30, hw=hw) for i, hw in enumerate(sizes)))
        lines = tmp_path / "out.jsonl"
        alone, batched, runs = Detector(path, nms="host"), Detector(path), []
        infer = batched.infer

        def counted(prepared: Any) -> Inference:
            runs.append(len(prepared.frames))
            time.sleep(0.005)  # so that the others' frames wait
            return infer(prepared)

        batched.infer = counted  # type: ignore[method-assign]
        summary = run_camera(batched, names, keep=DetectionFilter(score=0.0), json_lines=lines, show=False)
        assert summary.frames == 90
        assert runs.count(3) >= 15, "half of 30 rounds or more had a frame of every source"
        for record in map(json.loads, lines.read_text().splitlines()):
            frame = np.full((*sizes[record["source"]], 3), record["frame"] % 256, np.uint8)
            assert record["detections"] == alone(frame).to_dicts()

    def test_a_batch_that_is_not_full_keeps_its_graph(self, engine: Any, gpu: FakeGpu, sources: Sources) -> None:
        """Once sizes have settled, what follows resizing is one launch, whoever had a frame for it."""
        names = sources.add(*(FakeSource(f"s{i}", 60, period_s=0.001 * i, hw=(32, 64)) for i in range(3)))
        with Detector(engine(DECODED)) as detector:
            infer, runs = detector.infer, []

            def counted(prepared: Any) -> Inference:
                before = Counter(gpu.calls)
                time.sleep(0.002)
                found = infer(prepared)
                runs.append((len(prepared.frames), dict(gpu.calls - before)))
                return found

            detector.infer = counted  # type: ignore[method-assign]
            run_camera(detector, names, show=False)
        sizes = [size for size, _ in runs]
        changes = sum(a != b for a, b in itertools.pairwise(sizes))
        assert changes <= 8
        replayed = [size for size, calls in runs if calls == {**FRAMES, "launch": size}]
        assert len(replayed) >= len(runs) - 3 * (changes + 1)

    def test_several_are_copied_beside_the_network(self, engine: Any, gpu: FakeGpu, sources: Sources) -> None:
        names = sources.add(*(FakeSource(f"s{i}", 20, period_s=0.001 * i, hw=(32, 64)) for i in range(3)))
        with Detector(engine(DECODED), performance="throughput") as detector:
            summary = run_camera(detector, names, show=False)
        assert sum(source.frames for source in summary.sources) == 60
        assert gpu.calls["wait_for_event"] > 10
