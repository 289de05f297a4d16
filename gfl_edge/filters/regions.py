"""Regions of interest: polygons in a frame, in pixels or as shares of it."""

from __future__ import annotations

import functools
import math
import re
from dataclasses import dataclass
from numbers import Real

import numpy as np

from gfl_edge.errors import InputError
from gfl_edge.filters.polygons import Doubles, crossing, share_inside, signed_area
from gfl_edge.ops.boxes import MAX_COORDINATE
from gfl_edge.parsing.numbers import whole_number
from gfl_edge.parsing.validation import shown

MAX_CORNERS = 1000  # their edges are compared with each other
MAX_SOURCE = 10**6
MAX_SLIP = 2.0  # up to here numbers were meant as shares, which end at 1, rather than as pixels
_SOURCE = re.compile(r"\s*([0-9]{1,7}):(.*)", re.DOTALL)

EXAMPLE = "100,200 500,200 500,400, or as shares of the frame 0.1,0.2 0.9,0.2 0.5,0.9"


@dataclass(frozen=True)
class Region:
    """A polygon in the frame.

    Attributes:
        points: its corners x, y in the order round the border; a last one that is the first again is left out. In
            pixels of the frame, or all of 0..1: shares of its width and height, which fit frames of every size.
        source: of several sources of the camera the only one that it is for, from 0; None: for all.

    Raises:
        InputError: fewer than three corners, a number that is not finite, no area, a border that touches or crosses
            itself, of which inside and outside would not be clear, or shares that reach beyond 1.
    """

    points: tuple[tuple[float, float], ...]
    source: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.points, (tuple, list, np.ndarray)):
            raise InputError(
                f"region {shown(self.points)}: expected its corners, as ((100, 200), (500, 200), (500, 400))"
            )
        points = _distinct([_point(number, point) for number, point in enumerate(self.points)])
        object.__setattr__(self, "points", points)
        if self.source is not None:
            whole_number("the source of a region", self.source, 0, MAX_SOURCE)
        if not 3 <= len(points) <= MAX_CORNERS:
            raise InputError(f"a region of {len(points)} different corners: expected 3 to {MAX_CORNERS}, as {EXAMPLE}")
        corners = np.array(points)
        if (found := crossing(corners)) is not None:
            first, second = (f"from {_text(points[i])} to {_text(points[(i + 1) % len(points)])}" for i in found)
            raise InputError(
                f"the border of a region touches itself: its edges {first} and {second} meet. Give the corners in the "
                "order round the border; a hole is a region of its own, to be excluded"
            )
        if not self.relative and (abs(signed_area(corners)) < 1 or np.abs(corners).max() <= MAX_SLIP):
            raise InputError(
                f"a region of next to no pixels, from {_text(corners.min(axis=0))} to {_text(corners.max(axis=0))}: "
                "expected pixels, or shares of the frame, all of them 0..1"
            )

    @property
    def relative(self) -> bool:
        """Whether the corners are shares of the frame's width and height."""
        return all(0 <= value <= 1 for point in self.points for value in point)

    def corners(self, frame_hw: tuple[int, int] | None) -> Doubles:
        """The corners in pixels of a frame, float64 ``[k, 2]``; do not change them.

        Args:
            frame_hw: (height, width) of the frame; of a region in pixels it may be None.

        Raises:
            InputError: the region lies outside of the frame, shares of no frame are asked for, or what is no size.
        """
        if frame_hw is not None and (not isinstance(frame_hw, (tuple, list)) or len(frame_hw) != 2):
            raise InputError(f"frame_hw {shown(frame_hw)}: expected (height, width), as frame.shape[:2]")
        return _corners(self, None if frame_hw is None else (frame_hw[0], frame_hw[1]))


@functools.lru_cache(maxsize=256)
def _corners(region: Region, frame_hw: tuple[int, int] | None) -> Doubles:
    corners = np.array(region.points)
    if frame_hw is None:
        if region.relative:
            raise InputError("the size of the frame is needed, since a region is in shares of it: give frame_hw")
        return corners
    height, width = frame_hw
    if region.relative:
        return corners * (width, height)
    if not share_inside(np.array([[0, 0, width, height]], np.float64), corners)[0] > 0:
        low, high = corners.min(axis=0), corners.max(axis=0)
        raise InputError(
            f"a region lies outside of the frame of {width}x{height} pixels: it reaches from {_text(low)} to "
            f"{_text(high)}. Give corners of these frames, or shares of them, 0..1"
        )
    return corners


def parse_region(text: str) -> Region:
    """A region from a word of a command line: ``x,y x,y x,y``, with a source and a colon before it: ``1:x,y ...``.

    Numbers may stand between commas, semicolons and blanks; every two of them are a corner.

    Raises:
        InputError: other text, and as :class:`Region`.
    """
    found = _SOURCE.fullmatch(text)
    source, numbers = (int(found[1]), found[2]) if found else (None, text)
    values = parse_numbers(numbers)
    if not values or len(values) % 2:
        raise InputError(f"region {shown(text)}: expected corners x,y with blanks between them, as {EXAMPLE}")
    return Region(tuple(zip(values[::2], values[1::2], strict=True)), source)


def parse_numbers(text: str) -> tuple[float, ...]:
    """Numbers with commas, semicolons or blanks between them; none at all where one of them is none."""
    try:
        return tuple(float(word) for word in re.split(r"[\s,;]+", text) if word)
    except ValueError:
        return ()


def _point(number: int, point: object) -> tuple[float, float]:
    if isinstance(point, (tuple, list, np.ndarray)) and len(point) == 2:
        x, y = point
        if all(isinstance(value, Real) and not isinstance(value, bool) for value in (x, y)):
            x, y = float(x), float(y)
            if math.isfinite(x) and math.isfinite(y) and max(abs(x), abs(y)) <= float(MAX_COORDINATE):
                return x, y
    raise InputError(
        f"corner {number} of a region is {shown(point)}: expected two numbers x, y of at most {MAX_COORDINATE:g}"
    )


def _distinct(points: list[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """The points without those that are the one before again; the first comes after the last."""
    found = [point for before, point in zip([None, *points], points, strict=False) if point != before]
    return tuple(found[:-1] if len(found) > 1 and found[-1] == found[0] else found)


def _text(point: Doubles | tuple[float, float]) -> str:
    return f"{point[0]:.10g},{point[1]:.10g}"
