"""What only a GPU can show of the CUDA kernels; their results are compared there by the files beside this one, too."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.kernels.cuda_events import call
from benchmarks.kernels.library import NmsCall, nms_params
from tests.support.kernel_cases import (
    LEVEL_ANCHORS,
    LEVELS,
    assert_detections,
    few_high_scores,
    random_boxes,
    reference,
)

pytestmark = pytest.mark.gpu

HERE = Path(__file__).resolve().parent
on_gpu = pytest.mark.parametrize("library", ["nvcc", "production"], indirect=True)
RUNS = 10_000


def level_input(seed):
    rng = np.random.default_rng(seed)
    anchors = sum(LEVEL_ANCHORS)
    return random_boxes(rng, anchors, 2), few_high_scores(rng, (2, anchors, 20))


@on_gpu
def test_a_captured_call_can_be_replayed_on_other_input(library):
    boxes, scores = level_input(0)
    params = nms_params(scores, **LEVELS, per_level=1)
    with library.memory() as memory:
        nms = NmsCall(library, memory, params, scores=scores, boxes=boxes)
        graph = library.device.capture(memory.stream, lambda: library.queue_nms(nms, memory.stream))
        for seed in (0, 1, 2):
            boxes, scores = level_input(seed)
            for name, array in (("scores", scores), ("boxes", boxes)):
                memory.fill(getattr(nms.inputs, name), array)
            library.device.launch_graph(graph, memory.stream)
            expected = [reference(b, s, params, LEVEL_ANCHORS) for b, s in zip(boxes, scores, strict=True)]
            assert_detections(nms.results(), expected)
        library.device.destroy_graph(graph)


@on_gpu
def test_ten_thousand_runs_give_the_same_and_leak_nothing(library):
    rng = np.random.default_rng(1)
    scores = rng.uniform(0, 1, (1, 2000, 80)).astype(np.float32) ** 4
    with library.memory() as memory:
        nms = NmsCall(library, memory, nms_params(scores), scores=scores, boxes=random_boxes(rng, 2000))
        nms.queue()
        first = nms.results()

        def bytes_taken():
            free_before = int(call("cuMemGetInfo"))
            for i in range(RUNS // 10):
                nms.queue()
                if i % 250 == 249:
                    for name, values in nms.results().items():
                        np.testing.assert_array_equal(values, first[name])
            return free_before - int(call("cuMemGetInfo"))

        # Other processes take memory of the same GPU now and then; what leaks here, leaks every time
        assert min(bytes_taken() for _ in range(10)) <= 0


@pytest.mark.slow
@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "initcheck", "synccheck"])
def test_under_the_compute_sanitizer(tool):
    if shutil.which("compute-sanitizer") is None:
        pytest.skip("no compute-sanitizer on PATH; install the CUDA toolkit")
    cases = "nvcc and (decode or quality or beyond_a_word or tied or near or level_by_level_in_both or nv12)"
    files = [str(HERE / f"test_kernels_{name}.py") for name in ("nms", "decode", "resize")]
    child = [sys.executable, "-m", "pytest", "-q", "-x", *files, "-k", cases]
    words = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "99", "--target-processes", "all", *child]
    result = subprocess.run(words, capture_output=True, text=True, check=False, timeout=900)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]
    assert " passed" in result.stdout
