"""Statistics against numpy and known distributions; warm-up on scripted times."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from gfl_edge.bench.timing import WINDOW_RUNS, WINDOWS, summarize, warm_up
from gfl_edge.errors import InputError


def test_an_even_distribution():
    """0.01 ... 100 ms in even steps: a percentile is its own rank."""
    times_ms = np.random.default_rng(0).permutation(np.linspace(0.01, 100, 10_000))
    found = summarize(times_ms.tolist())
    for rank in (5, 25, 50, 75, 90, 95, 99):
        assert getattr(found, f"p{rank}_ms") == pytest.approx(rank, abs=0.02)
    assert found.mean_ms == pytest.approx(50.005)
    assert found.std_ms == pytest.approx(100 / np.sqrt(12), rel=1e-3)
    assert found.cv == pytest.approx(found.std_ms / found.mean_ms)
    assert (found.samples, found.min_ms, found.max_ms) == (10_000, 0.01, 100)


def test_fps_are_images_by_time_and_no_mean_of_ratios():
    found = summarize([10.0, 30.0], batch=4)
    assert found.seconds == pytest.approx(0.04)
    assert found.fps == pytest.approx(8 / 0.04)  # the mean of both ratios would be 266.7


@pytest.mark.parametrize("times_ms", [[], [1.0, 0.0], [-1.0]])
def test_times_that_cannot_be(times_ms):
    with pytest.raises(InputError, match="expected positive ones"):
        summarize(times_ms)


def test_steady_times_are_stable_as_soon_as_the_windows_are_full():
    found = warm_up(lambda: 5.0)
    assert (found.runs, found.stable, found.difference) == (WINDOWS * WINDOW_RUNS, True, 0.0)


def test_falling_times_are_waited_for():
    times = itertools.chain((20.0 - run for run in range(10)), itertools.repeat(10.0))
    found = warm_up(lambda: next(times))
    assert found.stable
    assert found.runs == 10 + WINDOWS * WINDOW_RUNS


def test_an_outlier_in_a_window_does_no_harm():
    times = itertools.cycle([5.0, 5.0, 50.0, 5.0, 5.0])
    assert warm_up(lambda: next(times)).stable


def test_times_that_never_settle_are_said_to():
    times = (1.1**run for run in itertools.count())
    found = warm_up(lambda: next(times), max_runs=40)
    assert (found.runs, found.stable) == (40, False)
    assert found.difference == pytest.approx(1.1**10 - 1)


def test_too_few_runs_have_no_difference():
    found = warm_up(lambda: 1.0, max_runs=7)
    assert (found.runs, found.stable, found.difference) == (7, False, None)


def test_a_gpu_is_under_load_for_a_while_however_steady_it_is(monkeypatch):
    clock = itertools.count(0.0, 0.02)  # seconds; asked once a run
    monkeypatch.setattr("gfl_edge.bench.timing.time.perf_counter", lambda: next(clock))
    found = warm_up(lambda: 5.0, max_runs=20, min_seconds=1.0)
    assert found.stable
    assert found.runs >= 45
    assert found.seconds >= 1.0
