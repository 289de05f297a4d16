"""Regions on a frame."""

from __future__ import annotations

import numpy as np

from gfl_edge.filters import DetectionFilter, Region
from gfl_edge.filters.draw import draw_regions

SQUARE = Region(((10, 5), (30, 5), (30, 40), (10, 40)))


def test_borders_are_faint_and_the_frame_stays_as_it_is() -> None:
    frame = np.full((48, 64, 3), 100, np.uint8)
    relative = Region(((0.75, 0), (1, 0), (1, 0.5)))
    drawn = draw_regions(frame, DetectionFilter(regions=(SQUARE,), excluded=(relative,)))
    assert (frame == 100).all()
    assert (abs(drawn[5, 10:31, 0].astype(int) - 178) <= 1).all(), "white, half of it"
    assert drawn[0, 48:64, 0].tolist() == [50] * 16, "black, half of it"
    assert (drawn[6:40, 11:30] == 100).all(), "only the border"


def test_only_those_of_the_source() -> None:
    frame = np.full((48, 64, 3), 100, np.uint8)
    keep = DetectionFilter(regions=(Region(SQUARE.points, 1),))
    assert draw_regions(frame, keep, 0) is frame
    assert (draw_regions(frame, keep, 1) != frame).any()
    assert draw_regions(frame, DetectionFilter()) is frame


def test_a_region_far_beyond_the_frame() -> None:
    frame = np.full((48, 64, 3), 100, np.uint8)
    around = Region(((-1e6, -1e6), (1e6, -1e6), (1e6, 1e6), (-1e6, 1e6)))
    assert (draw_regions(frame, DetectionFilter(regions=(around,))) == 100).all()
