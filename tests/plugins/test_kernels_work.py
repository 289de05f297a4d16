"""What the emulation counts of the kernels' work, and that it is less than it was."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks.kernels import kernels
from benchmarks.kernels.inputs import made
from benchmarks.kernels.library import TRAFFIC, EmulatedLibrary, cached_emulation, nms_params
from tests.support import emulated_kernels
from tests.support.kernel_cases import random_boxes


@pytest.fixture(scope="module")
def counting():
    emulated_kernels.library()  # skips without a compiler
    return EmulatedLibrary(cached_emulation(TRAFFIC))


def test_every_score_is_read_once_and_candidates_meet_what_is_kept(counting):
    rng = np.random.default_rng(0)
    scores = np.zeros((1, 4096, 1), np.float32)
    scores[0, :300] = rng.uniform(0.1, 1, (300, 1))
    counting.work()
    counting.nms(nms_params(scores, max_detections=300), scores=scores, boxes=random_boxes(rng, 4096))
    work = counting.work()
    assert work["gfl_filter_kernel"]["elements_read"] == 4096
    assert work["gfl_filter_kernel"]["keys_written"] == 300
    # 32 bytes a transaction: all scores, those of the survivors again (twice), their keys, and some counts
    moved = 4096 * 4 // 32
    assert moved <= work["gfl_filter_kernel"]["global"] <= moved + 3 * 300 + 64
    words = -(-300 // 32)  # each compared with itself, the one before it and what is kept of all others
    assert work["gfl_suppress_kernel"]["ious"] <= words * 32 * (2 * 32 + 300)
    assert all(row["block_steps"] and row["global"] for row in work.values())


@pytest.mark.parametrize("classes", [1, 80])
def test_the_longest_way_is_less_than_half_of_what_it_was(counting, classes):
    one = made(8400, classes, 1, np.float16)
    (before,) = (row for row in json.loads(kernels.BEFORE.read_text())["rows"] if one.named.items() <= row.items())
    now = kernels.counted(counting, one)["longest_way"]
    for what, count in before["longest_way"].items():
        assert now[what] < 0.4 * count, what
