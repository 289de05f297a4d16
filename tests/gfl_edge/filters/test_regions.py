"""Regions: what can be one, and their words on a command line."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from gfl_edge.errors import InputError
from gfl_edge.filters.regions import Region, parse_region

TRIANGLE = ((10, 10), (90, 10), (50, 80))


def test_pixels_and_shares() -> None:
    assert not Region(TRIANGLE).relative
    np.testing.assert_array_equal(Region(TRIANGLE).corners(None), TRIANGLE)
    half = Region(((0, 0), (0.5, 0), (0.5, 1), (0, 1)))
    assert half.relative
    assert half.corners((100, 200)).tolist() == [[0, 0], [100, 0], [100, 100], [0, 100]]
    with pytest.raises(InputError, match="give frame_hw"):
        half.corners(None)


def test_a_region_may_reach_beyond_the_frame_but_not_lie_outside() -> None:
    assert len(Region(((-50, -50), (500, -50), (500, 500), (-50, 500))).corners((48, 64))) == 4, "around all of it"
    assert len(Region(((60, 40), (500, 40), (500, 500))).corners((48, 64))) == 3
    for outside in (((64, 0), (90, 0), (90, 40)), ((-9, -9), (-1, -9), (-1, -1)), ((0, 48), (64, 48), (64, 99))):
        with pytest.raises(InputError, match=r"lies outside of the frame of 64x48 pixels: it reaches from .* shares"):
            Region(outside).corners((48, 64))


@pytest.mark.parametrize("size", [100, (48, 64, 3), (64,), np.zeros((48, 64))])
def test_what_is_no_size_of_a_frame(size: Any) -> None:
    with pytest.raises(InputError, match=r"frame_hw .*: expected \(height, width\), as frame\.shape\[:2\]"):
        Region(TRIANGLE).corners(size)
    assert Region(TRIANGLE).corners([96, 128]).tolist() == [list(corner) for corner in TRIANGLE]  # type: ignore[arg-type]


def test_points_that_come_twice_are_one() -> None:
    closed = Region(((0, 0), (9, 0), (9, 0), (9, 9), (0, 0)))
    assert closed.points == ((0, 0), (9, 0), (9, 9))
    assert closed == Region(np.array([[0, 0], [9, 0], [9, 9]]))  # type: ignore[arg-type]
    assert hash(closed) == hash(Region([[0, 0], [9, 0], [9, 9]]))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (((0, 0), (9, 9)), "a region of 2 different corners: expected 3 to 1000, as 100,200"),
        (((0, 0), (0, 0), (9, 9), (9, 9)), "a region of 2 different corners"),
        ((), "a region of 0 different corners"),
        (((0, 0), (9, math.nan), (9, 9)), r"corner 1 of a region is \[9, nan\]: expected two numbers"),
        (((0, 0), (9, 0), (9, math.inf)), "corner 2 .* at most 1.04858e"),
        (((0, 0), (9, 0), (9, 1e300)), "corner 2"),
        (((0, 0), (9, 0), (9, True)), "corner 2"),
        (((0, 0), (9, 0), (9, "9")), "corner 2"),
        (((0, 0), (9, 0), (9, 9, 9)), "corner 2"),
        ("0,0 9,0 9,9", "region '0,0 9,0 9,9': expected its corners"),
        (None, "region None"),
        (((0, 0), (9, 9), (9, 0), (0, 9)), "edges from 0,0 to 9,9 and from 9,0 to 0,9 meet. Give the corners in the"),
        (((0, 0), (5, 5), (9, 9)), "touches itself"),
        (
            ((0.1, 0.1), (0.9, 0.1), (0.9, 1.1)),
            "next to no pixels, from 0.1,0.1 to 0.9,1.1: expected pixels, or shares",
        ),
        (((0, 0), (1.5, 0), (1.5, 1), (0, 1)), "next to no pixels, from 0,0 to 1.5,1: expected pixels, or shares"),
        (((-0.5, -0.5), (1.5, -0.5), (1.5, 1.5), (-0.5, 1.5)), "next to no pixels, from -0.5,-0.5 to 1.5,1.5"),
        (((50, 50), (51, 50), (50, 51)), "next to no pixels"),
        (tuple((math.cos(i), math.sin(i)) for i in range(1001)), "a region of 1001 different corners"),
    ],
)
def test_what_is_no_region(points: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Region(points)


@pytest.mark.parametrize("source", [-1, 1.5, True, "0"])
def test_what_is_no_source(source: Any) -> None:
    with pytest.raises(InputError, match="the source of a region"):
        Region(TRIANGLE, source)


@pytest.mark.parametrize(
    "text", ["10,10 90,10 50,80", "10,10,90,10,50,80", " 10 10; 90 10 ;50,80 ", "1e1,10\n90,10\t50,80.0"]
)
def test_words(text: str) -> None:
    assert parse_region(text) == Region(TRIANGLE)
    assert parse_region(f"2:{text}") == Region(TRIANGLE, 2)


@pytest.mark.parametrize(
    "text", ["", "all", "1:", "10,10 90,10 50", "10,10 90,10 50,x", "10,10 90,10 50,nan", "-1:1,1 9,1 9,9", "0,0 9,9"]
)
def test_words_that_are_none(text: str) -> None:
    with pytest.raises(InputError, match="region"):
        parse_region(text)
