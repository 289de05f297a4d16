"""What of a model that was made of another passes for the same."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gfl_edge.ops.tolerances import TOLERANCES, Parity

SAME = Parity("the foreign file", 3, 1e-4, 1e-3, 0, TOLERANCES["fp32"])


def test_what_is_within_the_tolerance_passes():
    assert SAME.passed
    assert replace(SAME, sigma=1e-3).passed


@pytest.mark.parametrize("name", ["score", "edge", "sigma"])
@pytest.mark.parametrize("value", [2e-3, float("inf"), float("nan")])
def test_what_is_beyond_does_not(name, value):
    assert not replace(SAME, **{"sigma": 0.0, name: value}).passed


def test_other_detections_do_not():
    assert not replace(SAME, detections_differing=1).passed


def test_it_says_each_quantity():
    assert str(replace(SAME, sigma=0.0)) == (
        "largest difference from the foreign file on 3 images: score 1.00e-04 (tolerance 0.0001), box edge 1.00e-03 "
        "strides (tolerance 0.001), sigma 0.00e+00 strides (tolerance 0.001), images whose detections differ from "
        "greedy NMS: 0"
    )
    assert "sigma" not in str(SAME)
