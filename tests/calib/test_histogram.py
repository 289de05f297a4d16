"""The range of a tensor from the histogram of its magnitudes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calib.histogram import BINS, METHODS, STEPS, Histogram


class TestHistogram:
    @staticmethod
    def of(values, parts=3):
        histogram = Histogram()
        for part in np.array_split(np.asarray(values, np.float32), parts):
            histogram.add(part)
        return histogram

    def test_nothing_but_zeros(self):
        histogram = self.of(np.zeros(30))
        assert [histogram.range(method) for method in METHODS] == [0.0] * 4

    def test_max_is_the_largest_magnitude(self):
        assert self.of([0.5, -3.25, 1]).range("max") == 3.25

    def test_percentile_drops_outliers(self):
        values = np.concatenate((np.random.default_rng(0).uniform(-1, 1, 200_000), [50.0]))
        assert 0.9 < self.of(values).range("percentile") < 1.2

    @pytest.mark.parametrize("method", ["mse", "entropy"])
    def test_outliers_are_clipped_and_uniform_values_are_not(self, method):
        rng = np.random.default_rng(0)
        normal = rng.normal(size=300_000)
        assert self.of(np.concatenate((normal, [60.0]))).range(method) < 30
        assert self.of(rng.uniform(-1, 1, 100_000)).range(method) > 0.9

    def test_mse_is_the_best_of_all_ranges(self):
        values = np.random.default_rng(1).laplace(size=100_000).astype(np.float32)

        def error(limit):
            step = limit / STEPS
            return float(np.square(np.clip(np.round(values / step), -STEPS, STEPS) * step - values).mean())

        found = error(self.of(values).range("mse"))
        assert found <= 1.02 * min(error(limit) for limit in np.linspace(1, np.abs(values).max(), 200))

    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=60), st.integers(1, 5))
    def test_counts_everything_however_it_comes(self, values, parts):
        histogram = self.of(values, parts)
        assert histogram.counts.sum() == len(values)
        assert histogram.largest == np.abs(np.asarray(values, np.float32)).max()
        assert histogram.width == 0 or histogram.width * BINS >= histogram.largest * (1 - 1e-6)
        for method in METHODS:
            assert 0 <= histogram.range(method) <= histogram.largest


class TestUnsigned:
    @pytest.mark.parametrize(("low", "steps"), [(0.0, 255), (-1.0, 128), (-0.1, 232)])
    def test_steps_on_the_wider_side(self, low, steps):
        found = Histogram()
        found.add(np.float32([low, 0.5, 1.0]))
        assert found.unsigned_steps() == steps

    def test_nothing_seen(self):
        assert Histogram().unsigned_steps() == STEPS

    def test_more_steps_clip_less(self):
        found = Histogram()
        found.add(np.random.default_rng(0).exponential(size=100_000).astype(np.float32))
        assert found.range("mse", 255) > found.range("mse")
