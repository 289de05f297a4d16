from __future__ import annotations

import cv2
import numpy as np
import pytest

from gfl_edge.errors import FrameError
from gfl_edge.ops.preprocess import Nv12Frame, Placement, check_frame, checked_size, place, resize_into


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (np.zeros((48, 64), np.uint8), "gray image; convert with cv2.cvtColor"),
        (np.zeros((48, 64, 1), np.uint8), "gray image"),
        (np.zeros((48, 64, 3), np.uint16), "16-bit image; convert with"),
        (np.zeros((48, 64, 3), np.float32), "convert to 8 bits"),
        (np.zeros((48, 64, 4), np.uint8), "four channels"),
        (np.zeros((1, 1, 3), np.uint8), "at least 2 pixels"),
        (np.zeros((0, 64, 3), np.uint8), "at least 2 pixels"),
        (np.zeros((2, 48, 64, 3), np.uint8), "one frame at a time"),
        (np.zeros((3, 48, 64), np.uint8), "channels last"),
        ([[1]], "is a list: expected a NumPy array"),
        (None, "is a NoneType: .* cv2.imread gives None of a file that it cannot read"),
    ],
)
def test_a_frame_that_is_not_an_image_is_refused_with_the_way_out(frame, message):
    with pytest.raises(FrameError, match=message):
        check_frame(frame)


def test_stretch_is_opencvs_bilinear_resize():
    frame = np.random.default_rng(0).integers(0, 256, (37, 91, 3), np.uint8)
    out = np.full((64, 96, 3), 7, np.uint8)
    resize_into(frame, out, "stretch")
    np.testing.assert_array_equal(out, cv2.resize(frame, (96, 64)))


def test_letterbox_is_nanodets_warp():
    """Against the matrices of RangiLyu/nanodet's get_resize_matrix with keep_ratio, multiplied out by hand."""
    frame = np.random.default_rng(0).integers(0, 256, (100, 50, 3), np.uint8)
    out = np.full((64, 64, 3), 7, np.uint8)
    placement = resize_into(frame, out, "letterbox")
    center = np.array([[1, 0, -25], [0, 1, -50], [0, 0, 1.0]])
    scale = np.diag([0.64, 0.64, 1])
    back = np.array([[1, 0, 32], [0, 1, 32], [0, 0, 1.0]])
    expected = cv2.warpPerspective(frame, back @ scale @ center, (64, 64))
    np.testing.assert_allclose(out.astype(int), expected, atol=1)
    assert not out[:, :15].any()
    assert placement == Placement((100, 50), (0.64, 0.64), (16.0, 0.0))


@pytest.mark.parametrize("frame_hw", [(2, 2), (37, 91), (640, 427), (1080, 1920), (3, 32766)])
def test_letterbox_is_the_same_in_every_version_of_opencv(frame_hw):
    """cv2.warpAffine up to OpenCV 4 rounds positions to 1/32 pixel; written out here, as later ones do not."""
    frame = np.random.default_rng(0).integers(0, 256, (*frame_hw, 3), np.uint8)
    out = np.full((96, 64, 3), 7, np.uint8)
    placement = resize_into(frame, out, "letterbox")
    (scale, _), (left, top) = placement.scale_xy, placement.offset_xy
    x, y = (
        np.rint((np.rint(np.arange(size) / scale * 1024) + np.rint(-offset / scale * 1024) + 0.5) / 32) / 32
        for size, offset in ((64, left), (96, top))
    )
    expected = bilinear(np.pad(frame, ((1, 2), (1, 2), (0, 0))), x.clip(-1, frame_hw[1]), y.clip(-1, frame_hw[0]))
    assert np.abs(out - expected).max() <= 0.51
    if cv2.__version__ < "5":
        matrix = np.array([[scale, 0, left], [0, scale, top]])
        np.testing.assert_array_equal(out, cv2.warpAffine(frame, matrix, (64, 96), flags=cv2.INTER_LINEAR))


def bilinear(padded, x, y):
    """``padded`` has a pixel more before the first of the frame, and two after its last."""
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    along, down = (x - left)[None, :, None], (y - top)[:, None, None]
    upper, lower = ((1 - along) * padded[top + i][:, left + 1] + along * padded[top + i][:, left + 2] for i in (1, 2))
    return (1 - down) * upper + down * lower


@pytest.mark.parametrize("frame_hw", [(32767, 4), (4, 32767), (40000, 100)])
def test_a_frame_too_long_for_opencvs_maps_is_refused(frame_hw):
    with pytest.raises(FrameError, match=rf"{frame_hw[1]} x {frame_hw[0]} pixels, .* 32766 a side at most"):
        resize_into(np.zeros((*frame_hw, 3), np.uint8), np.empty((64, 64, 3), np.uint8), "letterbox")


def test_fit_is_a_keep_ratio_resize_in_the_corner_on_the_mean_color():
    frame = np.random.default_rng(0).integers(0, 256, (101, 51, 3), np.uint8)
    out = np.zeros((64, 96, 3), np.uint8)
    placement = resize_into(frame, out, "fit")
    np.testing.assert_array_equal(out[:, :32], cv2.resize(frame, (32, 64)))
    assert (out[:, 32:] == (104, 116, 124)).all()
    assert placement == Placement((101, 51), (32 / 51, 64 / 101), (0.0, 0.0))


def test_stretching_is_cubic_where_the_rule_says_so():
    frame = np.random.default_rng(0).integers(0, 256, (101, 51, 3), np.uint8)
    out, linear = np.zeros((2, 64, 96, 3), np.uint8)
    placement = resize_into(frame, out, "stretch-cubic")
    np.testing.assert_array_equal(out, cv2.resize(frame, (96, 64), interpolation=cv2.INTER_CUBIC))
    assert placement == resize_into(frame, linear, "stretch")
    assert np.abs(out.astype(int) - linear).mean() > 5


@pytest.mark.parametrize("rule", ["stretch", "letterbox", "fit", "stretch-cubic"])
@pytest.mark.parametrize("frame_hw", [(480, 640), (1080, 1920), (50, 700), (333, 77)])
def test_boxes_come_back_to_where_they_were(rule, frame_hw):
    placement = place(frame_hw, (320, 416), rule)
    boxes = np.array([[1, 2, 30, 40], [10, 5, 70, 45]], np.float32)
    there = boxes * np.tile(placement.scale_xy, 2) + np.tile(placement.offset_xy, 2)
    np.testing.assert_allclose(placement.to_frame(there.astype(np.float32)), boxes, atol=0.01)


def test_boxes_are_clipped_to_the_frame():
    placement = place((100, 100), (320, 320), "stretch")
    np.testing.assert_array_equal(placement.to_frame(np.array([[-50, 0, 400, 90]], np.float32)), [[0, 0, 100, 28.125]])
    assert placement.to_frame(np.empty((0, 4), np.float32)).shape == (0, 4)


def test_a_gray_or_16_bit_frame_in_the_middle_is_refused_before_anything_is_written():
    out = np.full((32, 32, 3), 9, np.uint8)
    with pytest.raises(FrameError):
        resize_into(np.zeros((10, 10), np.uint8), out, "stretch")
    assert (out == 9).all()


@pytest.mark.parametrize("rule", ["stretch", "letterbox", "fit", "stretch-cubic"])
def test_nv12_is_the_bgr_that_opencv_makes_of_it(rule):
    planes = np.random.default_rng(0).integers(0, 256, (72, 64), np.uint8)
    frame, found, expected = Nv12Frame(planes), *np.empty((2, 32, 96, 3), np.uint8)
    assert checked_size(frame) == (48, 64)
    placed = resize_into(frame, found, rule)
    assert placed == resize_into(cv2.cvtColor(planes, cv2.COLOR_YUV2BGR_NV12), expected, rule)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("planes", "message"),
    [
        (None, r"planes are NoneType \[\], expected uint8 \[h \* 3 / 2, w\]"),
        (np.zeros((48, 64, 3), np.uint8), r"planes are uint8 \[48, 64, 3\], expected"),
        (np.zeros((72, 64), np.uint16), r"planes are uint16 \[72, 64\], expected"),
        (np.zeros((71, 64), np.uint8), r"\[71, 64\], expected .* even h and w\. Cut padding off the rows"),
        (np.zeros((72, 63), np.uint8), r"\[72, 63\], expected .* even h and w\."),
        (np.zeros((0, 64), np.uint8), r"\[0, 64\], expected .* even h and w\."),
    ],
)
def test_planes_that_are_not_nv12(planes, message):
    with pytest.raises(FrameError, match=message):
        Nv12Frame(planes)
