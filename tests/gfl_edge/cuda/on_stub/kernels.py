"""The kernels as gfl_edge runs them, by the real libraries; the stub runs them in the emulation."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest

from benchmarks.kernels.library import NmsCall, nms_params
from benchmarks.kernels.production import ProductionLibrary
from gfl_edge.cuda import cuda_python, open_device
from gfl_edge.cuda.cuda_python import CudaPythonDevice
from gfl_edge.cuda.interface import CudaDevice
from gfl_edge.cuda.kernels import LOGITS, Kernels, resize_params
from gfl_edge.cuda.memory import MirroredMemory
from gfl_edge.ops.decode import decode
from gfl_edge.ops.preprocess import place_frame, resize_into
from tests.support.kernel_cases import (
    LEVEL_ANCHORS,
    LEVELS,
    assert_detections,
    assert_equals_reference,
    few_high_scores,
    random_boxes,
    reference,
)
from tests.support.sigma_oracle import expected, sigmas_of_points
from tests.support.stub_driver.library import StubDriver
from tests.support.tiny_spec import TINY


@pytest.fixture(params=[False, True], ids=["calls", "graph"])
def production(request: pytest.FixtureRequest, device: CudaDevice) -> Iterator[ProductionLibrary]:
    if request.param and not device.captures:
        pytest.skip(f"{device.library} captures no graphs")
    with closing(ProductionLibrary(device, captured=request.param)) as library:
        yield library


@pytest.mark.parametrize("per_level", [0, 1])
def test_boxes_and_scores(production: ProductionLibrary, per_level: int) -> None:
    rng = np.random.default_rng(0)
    anchors = sum(LEVEL_ANCHORS)
    boxes, scores = random_boxes(rng, anchors, 2), few_high_scores(rng, (2, anchors, 5))
    lists = LEVEL_ANCHORS if per_level else None
    for class_agnostic in (0, 1):
        rule = {**LEVELS, "per_level": per_level, "class_agnostic": class_agnostic, "max_candidates": 100}
        assert_equals_reference(production, boxes, scores, lists, **rule)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_raw_maps(production: ProductionLibrary, dtype: type) -> None:
    rng = np.random.default_rng(1)
    anchors = sum(LEVEL_ANCHORS)
    logits = rng.permutation(np.linspace(-6, 3, 2 * anchors)).astype(dtype).reshape(2, anchors, 1)
    reg = rng.normal(0, 3, (2, anchors, 4 * 17)).astype(dtype)
    params = nms_params(logits, **LEVELS, score_kind=LOGITS, reg_max=16, point_offset=0.5)
    found = production.nms(params, scores=logits, reg_logits=reg)
    boxes = decode(reg.astype(np.float32), LEVELS["input_hw"], LEVELS["strides"], 0.5)
    scores = 1 / (1 + np.exp(-logits.astype(np.float32)))
    for image, want in enumerate(reference(b, s, params) for b, s in zip(boxes, scores, strict=True)):
        count = found["num_dets"][image, 0]
        assert count == len(want[1])
        np.testing.assert_allclose(found["det_boxes"][image, :count], want[0], rtol=0, atol=1e-3)


def test_sigmas(production: ProductionLibrary) -> None:
    """In the order of the points that they were decoded from, of boxes and of distributions."""
    rng = np.random.default_rng(6)
    anchors = sum(LEVEL_ANCHORS)
    spec = dataclasses.replace(TINY, class_names=("a",), nms="raw", **LEVELS)
    logits = rng.permutation(np.linspace(-6, 3, anchors)).astype(np.float32).reshape(1, anchors, 1)
    reg = rng.normal(0, 3, (1, anchors, 4 * (spec.reg_max + 1))).astype(np.float32)
    params = nms_params(logits, **LEVELS, score_kind=LOGITS, reg_max=spec.reg_max, point_offset=spec.point_offset)
    found = production.nms(params, True, scores=logits, reg_logits=reg)
    *_, sigmas = expected(logits[0], reg[0], spec)
    np.testing.assert_allclose(found["det_sigmas"][0, : len(sigmas)], sigmas, rtol=1e-4, atol=1e-3)
    boxes = decode(reg, LEVELS["input_hw"], LEVELS["strides"], spec.point_offset)
    scores = 1 / (1 + np.exp(-logits))
    given = sigmas_of_points(reg[0], spec)[None]
    found = production.nms(nms_params(scores), scores=scores, boxes=boxes, sigmas=given)
    np.testing.assert_array_equal(found["det_sigmas"][0, : len(sigmas)], sigmas)


def test_replayed_on_other_input(device: CudaDevice) -> None:
    """Nothing of one call is left to the next: no counter has to be cleared."""
    if not device.captures:
        pytest.skip(f"{device.library} captures no graphs")
    anchors = sum(LEVEL_ANCHORS)
    with closing(ProductionLibrary(device)) as library, library.memory() as memory:
        rng = np.random.default_rng(2)
        boxes, scores = random_boxes(rng, anchors), few_high_scores(rng, (1, anchors, 20))
        params = nms_params(scores)
        call = NmsCall(library, memory, params, scores=scores, boxes=boxes)
        graph = device.capture(memory.stream, call.queue)
        for _ in range(3):
            boxes, scores = random_boxes(rng, anchors), few_high_scores(rng, (1, anchors, 20))
            memory.fill(call.inputs.scores, scores)
            memory.fill(call.inputs.boxes, boxes)
            device.launch_graph(graph, memory.stream)
            assert_detections(call.results(), [reference(boxes[0], scores[0], params)])
        device.destroy_graph(graph)


@pytest.mark.parametrize(
    ("sm", "first_driver", "overlapping"), [(90, 12030, 2), (121, 13000, 2), (89, 12030, 0), (90, 13010, 0)]
)
def test_launches_overlap_where_gpu_and_driver_can(
    stub: StubDriver, monkeypatch: pytest.MonkeyPatch, sm: int, first_driver: int, overlapping: int
) -> None:
    """All but the first: the network before it does not let it begin early. The driver here is of CUDA 13.0."""
    monkeypatch.setattr(cuda_python, "_OVERLAP_FROM", (90, first_driver))
    stub.set("sm", sm)
    try:
        rng = np.random.default_rng(4)
        boxes, scores = random_boxes(rng, 300), few_high_scores(rng, (1, 300, 5))
        with closing(ProductionLibrary(open_device("cuda-python"), captured=True)) as library:
            stub.clear_calls()
            assert_equals_reference(library, boxes, scores)
        assert stub.calls.count("cuLaunchKernelEx") == overlapping
        assert stub.calls.count("cuLaunchKernel") == 3 - overlapping
        with closing(ProductionLibrary(open_device("cuda-python"), overlapping=False)) as library:
            stub.clear_calls()
            assert_equals_reference(library, boxes, scores)
        assert "cuLaunchKernelEx" not in stub.calls
    finally:
        stub.set("sm", 75)


def test_a_gpu_with_the_memory_of_the_host_copies_nothing(stub: StubDriver) -> None:
    """Frames and results stay where they are; the device that copies finds the same."""
    frame = np.random.default_rng(5).integers(0, 256, (48, 61, 3), np.uint8)
    params = resize_params(TINY, place_frame(frame.shape[:2], TINY.input_hw, TINY.resize), TINY.input_hw)
    found = {}
    for integrated in (0, 1):
        stub.set("integrated", integrated)
        device = CudaPythonDevice()
        assert device.maps == bool(integrated)
        with device.active(), closing(Kernels(device)) as kernels:
            memory = MirroredMemory(device, frame.nbytes), MirroredMemory(device, 3 * math.prod(TINY.input_hw))
            stream = device.create_stream()
            np.copyto(memory[0].host(frame.shape, np.uint8), frame)
            stub.clear_calls()
            memory[0].upload(frame.nbytes, stream)
            kernels.resize(params, memory[0].address, memory[1].address, stream)
            memory[1].download(memory[1].nbytes, stream)
            device.synchronize(stream)
            assert sum(call.startswith("cuMemcpy") for call in stub.calls) == 2 * (1 - integrated)
            assert stub.count("device") == 2 * (1 - integrated)
            found[integrated] = memory[1].host((*TINY.input_hw, 3), np.uint8).copy()
            for part in memory:
                part.close()
            device.destroy_stream(stream)
    np.testing.assert_array_equal(found[0], found[1])
    assert np.ptp(found[1]) > 100


def test_resize(production: ProductionLibrary) -> None:
    frame = np.random.default_rng(3).integers(0, 256, (48, 61, 3), np.uint8)
    expected = np.empty((*TINY.input_hw, 3), np.uint8)
    params = resize_params(TINY, resize_into(frame, expected, TINY.resize), TINY.input_hw)
    found = production.resize(params, frame)  # type: ignore[arg-type]
    assert (np.abs(found.astype(int) - expected) > 1).mean() <= 0.01
