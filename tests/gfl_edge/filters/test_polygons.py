"""Points and boxes in polygons, compared with OpenCV."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from gfl_edge.filters.polygons import crossing, inside, share_inside, signed_area

SQUARE = np.array([[0, 0], [4, 0], [4, 4], [0, 4]], np.float64)
BOW = np.array([[0, 0], [4, 4], [4, 0], [0, 4]], np.float64)


def star(rng: np.random.Generator, corners: int, step: float = 0.5) -> np.ndarray:
    """A simple polygon on a grid, so that many points lie on its border: corners by their angle round a center."""
    while True:
        points = np.unique(np.round(rng.uniform(0, 20, (corners, 2)) / step) * step, axis=0)
        offsets = points - (10.1, 9.9)
        angles = np.arctan2(offsets[:, 1], offsets[:, 0])
        polygon = points[np.argsort(angles)]
        turns = np.diff(np.sort(angles), append=np.sort(angles)[0] + 2 * np.pi)
        if len(polygon) >= 3 and turns.min() > 1e-6 and turns.max() < np.pi - 1e-6:
            return polygon[:: rng.choice((-1, 1))]


@pytest.mark.parametrize("seed", range(40))
def test_points_as_opencv_finds_them(seed: int) -> None:
    rng = np.random.default_rng(seed)
    polygon = star(rng, int(rng.integers(4, 12)))
    points = np.stack(np.meshgrid(np.arange(-1, 22, 0.5), np.arange(-1, 22, 0.5)), axis=-1).reshape(-1, 2)
    contour = polygon.astype(np.float32)
    expected = [cv2.pointPolygonTest(contour, (float(x), float(y)), False) >= 0 for x, y in points]
    np.testing.assert_array_equal(inside(points, polygon), expected)


def test_points_on_corners_edges_and_beside_them() -> None:
    points = [[0, 0], [4, 4], [2, 0], [4, 2], [2, 4], [0, 2], [5, 0], [-1, 4], [2, -1], [4.0000001, 2], [2, 2]]
    expected = [True] * 6 + [False] * 4 + [True]
    assert inside(np.array(points, np.float64), SQUARE).tolist() == expected
    assert inside(np.array(points, np.float64), SQUARE[::-1]).tolist() == expected
    assert inside(np.empty((0, 2)), SQUARE).tolist() == []


@pytest.mark.parametrize("seed", range(40))
def test_shares_as_opencv_clips_convex_polygons(seed: int) -> None:
    rng = np.random.default_rng(seed)
    hull = cv2.convexHull(rng.uniform(0, 20, (7, 2)).astype(np.float32))[:, 0]
    corners = np.round(rng.uniform(-5, 25, (20, 2)), 1)
    boxes = np.concatenate((corners, corners + np.round(rng.uniform(0.1, 20, (20, 2)), 1)), axis=1)
    expected = []
    for x1, y1, x2, y2 in boxes:
        corners = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], np.float32)
        expected.append(cv2.intersectConvexConvex(hull, corners)[0] / ((x2 - x1) * (y2 - y1)))
    np.testing.assert_allclose(share_inside(boxes, hull.astype(np.float64)), expected, atol=2e-3)


@pytest.mark.parametrize("seed", range(10))
def test_shares_as_counted_pixels_of_any_polygon(seed: int) -> None:
    rng = np.random.default_rng(seed)
    polygon, fine = star(rng, int(rng.integers(4, 12)), step=1), 25  # pixels a unit
    mask = np.zeros((20 * fine, 20 * fine), np.uint8)
    centers = np.stack(np.meshgrid(*[(np.arange(20 * fine) + 0.5) / fine] * 2), axis=-1).reshape(-1, 2)
    mask = inside(centers, polygon).reshape(mask.shape)
    boxes = np.array([[0, 0, 20, 20], [3, 4, 9, 17], [10, 10, 11, 11], [0, 9, 20, 10], [5, 0, 6, 20]], np.float64)
    counted = [mask[y1 * fine : y2 * fine, x1 * fine : x2 * fine].mean() for x1, y1, x2, y2 in boxes.astype(int)]
    np.testing.assert_allclose(share_inside(boxes, polygon), counted, atol=0.01)
    whole = share_inside(boxes[:1], polygon)[0] * 400
    assert (
        whole == pytest.approx(abs(signed_area(polygon))) == pytest.approx(cv2.contourArea(polygon.astype(np.float32)))
    )


def test_shares_at_the_border() -> None:
    boxes = [[0, 0, 4, 4], [1, 1, 2, 2], [4, 0, 8, 4], [2, 2, 6, 6], [-9, -9, 9, 9], [2, 2, 2, 2], [9, 9, 9, 12]]
    expected = [1, 1, 0, 0.25, 16 / 324, 1, 0]
    np.testing.assert_allclose(share_inside(np.array(boxes, np.float64), SQUARE), expected, atol=1e-12)
    assert share_inside(np.empty((0, 4)), SQUARE).tolist() == []


def test_shares_far_from_the_origin_and_of_thin_polygons() -> None:
    far = 2.0**20
    box = np.array([[far - 4, far - 4, far, far]])
    assert share_inside(box, SQUARE + (far - 4)).tolist() == [1.0]
    sliver = np.array([[0, 0], [1000, 0.001], [1000, 0.002], [0, 0.001]])
    assert share_inside(np.array([[0, 0, 1000, 1]], np.float64), sliver)[0] == pytest.approx(0.001)


@pytest.mark.parametrize("seed", range(40))
def test_a_star_crosses_itself_nowhere_and_with_two_corners_swapped_it_does(seed: int) -> None:
    rng = np.random.default_rng(seed)
    polygon = cv2.convexHull(rng.uniform(0, 20, (12, 2)).astype(np.float32))[:, 0].astype(np.float64)
    assert crossing(star(rng, 9)) is None
    assert crossing(polygon) is None
    swapped = polygon.copy()
    swapped[[1, 2]] = polygon[[2, 1]]
    assert (crossing(swapped) is None) == (len(polygon) == 3)


@pytest.mark.parametrize(
    ("polygon", "edges"),
    [
        (BOW, (0, 2)),
        ([[0, 0], [4, 0], [8, 0]], (0, 2)),  # runs back along itself
        ([[0, 0], [4, 0], [4, 4], [2, 0]], (0, 2)),  # a corner on an edge
        ([[0, 0], [2, 2], [4, 0], [4, 4], [2, 2], [0, 4]], (0, 3)),  # a corner that comes twice
        ([[0, 0], [4, 0], [4, 4], [4, 2], [0, 4]], (1, 2)),  # a spike
    ],
)
def test_borders_that_touch_themselves(polygon: list[list[float]], edges: tuple[int, int]) -> None:
    assert crossing(np.array(polygon, np.float64)) == edges
