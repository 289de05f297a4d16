"""Boxes follow the pixels: painted rectangles are found again where the boxes say."""

from __future__ import annotations

import colorsys
from dataclasses import replace

import cv2
import numpy as np
import pytest

from gfl_edge.ops.preprocess import PADDING_BGR, Placement, place, resize_into
from train.data.augment.color import ColorJitter, HsvJitter, saturated
from train.data.augment.mosaic import mosaic
from train.data.augment.paste import MARGIN, Paste
from train.data.augment.transforms import (
    HorizontalFlip,
    RandomAffine,
    RandomCrop,
    Sample,
    cut_to_image,
    flip,
    start_placement,
    to_input,
    to_input_moved,
)

GRAY = 60
COLORS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255), (0, 255, 255)]  # by label
RULES = ["stretch", "letterbox", "fit", "stretch-cubic"]
AFFINE = RandomAffine((0.6, 1.4), (0.8, 1.2), (0.8, 1.2), 0.2)  # nanodet's own


def painted(size_hw=(200, 300), boxes=((30, 40, 110, 90), (150, 20, 230, 180), (20, 120, 100, 190)), first=0):
    """A gray image with a rectangle per box, apart from each other, in the color of its label."""
    image = np.full((*size_hw, 3), GRAY, np.uint8)
    for label, (x1, y1, x2, y2) in enumerate(boxes, first):
        image[y1:y2, x1:x2] = COLORS[label]
    return Sample(image, np.array(boxes, np.float32).reshape(-1, 4), np.arange(first, first + len(boxes)))


def found(image, label):
    """The edges of what has the color of ``label``, or None."""
    near = (np.abs(image.astype(int) - COLORS[label]).max(axis=2) < 110).nonzero()
    if not len(near[0]):
        return None
    return np.array([near[1].min(), near[0].min(), near[1].max() + 1, near[0].max() + 1])


def assert_boxes_follow_pixels(sample, labels, tolerance=1.6):
    """Every box is where its color is; a color without a box has little left. Returns how many boxes there are."""
    assert sample.boxes.dtype == np.float32
    assert sample.labels.dtype == np.int64
    assert sample.image.dtype == np.uint8
    assert sample.image.flags.c_contiguous
    for box, label in zip(sample.boxes, sample.labels, strict=True):
        np.testing.assert_allclose(box, found(sample.image, label), atol=tolerance)
    height, width = sample.image.shape[:2]
    assert (sample.boxes >= 0).all()
    assert (sample.boxes <= (width, height, width, height)).all()
    assert set(sample.labels.tolist()) <= set(labels)
    return len(sample.labels)


def test_flip():
    sample = painted()
    once = flip(sample)
    assert assert_boxes_follow_pixels(once, range(3), 0) == 3
    assert once.boxes[0].tolist() == [190, 40, 270, 90]
    twice = flip(once)
    np.testing.assert_array_equal(twice.image, sample.image)
    np.testing.assert_array_equal(twice.boxes, sample.boxes)


def test_flip_comes_with_its_probability():
    sample, rng = painted(), np.random.default_rng(0)
    flips = sum(HorizontalFlip(0.3)(sample, rng) is not sample for _ in range(500))
    assert 120 < flips < 180
    assert HorizontalFlip(0)(sample, rng) is sample


def test_crop():
    rng, sizes, kept = np.random.default_rng(0), set(), []
    for _ in range(100):
        cut = RandomCrop(1.0, 0.3)(painted(), rng)
        kept.append(assert_boxes_follow_pixels(cut, range(3), 0))
        sizes.add(cut.size_hw)
        whole = [(80, 50), (80, 160), (80, 70)]
        sides = cut.boxes[:, 2:] - cut.boxes[:, :2]
        assert any(tuple(side) == whole[label] for side, label in zip(sides, cut.labels, strict=True))
    assert min(kept) == 1
    assert max(kept) == 3
    assert len(sizes) > 90
    assert min(height for height, _ in sizes) < 100


def test_crop_of_a_background_image_and_of_a_box_that_fills_it():
    rng = np.random.default_rng(0)
    background = RandomCrop(1.0)(painted(boxes=()), rng)
    assert background.boxes.shape == (0, 4)
    assert background.size_hw != (200, 300)
    full = painted(boxes=((0, 0, 300, 200),))
    assert RandomCrop(1.0, 0.1)(full, rng).size_hw == (200, 300)


@pytest.mark.parametrize("size_hw", [(200, 300), (310, 190), (64, 500)])
@pytest.mark.parametrize("rule", RULES)
def test_the_input_of_training_is_that_of_the_run_time(rule, size_hw):
    sample = painted(size_hw, ((5, 8, 60, 30), (100, 10, 180, 50)))
    placed, placement = to_input(sample, (160, 224), rule)
    expected = np.empty((160, 224, 3), np.uint8)
    assert placement == resize_into(sample.image, expected, rule)
    np.testing.assert_array_equal(placed.image, expected)
    assert assert_boxes_follow_pixels(placed, range(2)) == 2
    np.testing.assert_allclose(placement.to_frame(placed.boxes), sample.boxes, atol=1e-3)
    still = to_input_moved(sample, (160, 224), rule, RandomAffine(), np.random.default_rng(0))
    np.testing.assert_array_equal(still.image, expected)
    np.testing.assert_array_equal(still.boxes, placed.boxes)


@pytest.mark.parametrize("size_hw", [(200, 300), (310, 190)])
def test_short_and_long_side(size_hw):
    sample = painted(size_hw, ((5, 8, 60, 30),))
    placed, placement = to_input(sample, (320, 320), "fit", (160, 200))
    assert max(size_hw) * placement.scale_xy[0] == pytest.approx(200, abs=1)
    still = to_input_moved(sample, (320, 320), "fit", RandomAffine(), np.random.default_rng(0), short_long=(160, 200))
    np.testing.assert_array_equal(still.image, placed.image)
    assert assert_boxes_follow_pixels(placed, [0]) == 1


def test_a_crop_of_another_shape_stays_inside_an_input_made_for_the_whole():
    upright = painted((300, 100), ((10, 20, 60, 250),))
    assert start_placement((300, 100), (192, 320), "fit", (190, 320)).scale_xy[1] == pytest.approx(192 / 300)
    placed = to_input_moved(upright, (192, 320), "fit", RandomAffine(), np.random.default_rng(0), short_long=(190, 320))
    assert assert_boxes_follow_pixels(placed, [0]) == 1


@pytest.mark.parametrize("rule", RULES)
def test_affine(rule):
    rng, kept, corners = np.random.default_rng(0), 0, set()
    for _ in range(60):
        moved = to_input_moved(painted(), (240, 320), rule, AFFINE, rng)
        kept += assert_boxes_follow_pixels(moved, range(3))
        corners.add(tuple(moved.boxes[0]) if len(moved.boxes) else None)
        for label in set(range(3)) - set(moved.labels.tolist()):  # dropped, so that little or nothing of it is left
            left = found(moved.image, label)
            assert left is None or (left[2] - left[0]) * (left[3] - left[1]) < 0.4 * 80 * 160
    assert kept > 150
    assert len(corners) > 40


@pytest.mark.parametrize("rule", RULES)
def test_affine_without_a_change_is_the_plain_resize_to_rounding(rule):
    """The one exact path and the warp agree, so that moved and unmoved images lie on the same grid."""
    noise = np.random.default_rng(0).integers(0, 256, (90, 130, 3), np.uint8)
    image = cv2.GaussianBlur(cv2.resize(noise, (260, 180)), (0, 0), 3)
    almost = place((180, 260), (120, 160), rule)
    almost = Placement(almost.frame_hw, (almost.scale_xy[0] + 1e-7, almost.scale_xy[1]), almost.offset_xy)
    sample = Sample(image, np.empty((0, 4), np.float32), np.empty(0, np.int64))
    warped = to_input_moved(sample, (120, 160), rule, RandomAffine(), np.random.default_rng(0), start=almost)
    plain, _ = to_input(sample, (120, 160), rule)
    difference = np.abs(warped.image.astype(int) - plain.image)
    if rule == "stretch-cubic":  # at the border it mixes in more of what is beyond
        difference = difference[2:-2, 2:-2]
    assert difference.max() <= 4  # warpAffine rounds positions to 1/32 pixel
    assert difference.mean() < 0.5


def test_affine_draws_from_its_ranges():
    rng, start = np.random.default_rng(0), place((100, 200), (300, 300), "stretch")
    moved = [AFFINE.move(start, (300, 300), rng) for _ in range(400)]
    factors = np.array([m.scale_xy for m in moved]) / start.scale_xy
    centers = np.array([m.offset_xy for m in moved]) + np.array([m.scale_xy for m in moved]) * (100, 50)
    assert factors.min() >= 0.6 * 0.8
    assert factors.max() <= 1.4 * 1.2
    assert factors.min() < 0.6
    assert factors.max() > 1.3
    assert np.abs(centers - 150).max() <= 60
    assert np.abs(centers - 150).max() > 50
    assert sum(m == start for m in moved) == pytest.approx(400 / 8, abs=20)  # each of three with one half


def test_shifts_are_parts_of_the_picture_and_not_of_its_border():
    """A letterboxed image of 300 x 75 pixels in 300 x 300 moves by at most 60 and 15."""
    rng, start = np.random.default_rng(0), place((50, 200), (300, 300), "letterbox")
    offsets = np.array([RandomAffine(translate=0.2).move(start, (300, 300), rng).offset_xy for _ in range(400)])
    reach = np.abs(offsets - start.offset_xy).max(axis=0)
    assert (reach <= (60, 15)).all()
    assert (reach > (55, 14)).all()


@pytest.mark.parametrize("rule", RULES)
def test_beside_the_picture_is_what_the_run_time_has_there(rule):
    white = Sample(np.full((100, 100, 3), 255, np.uint8), np.empty((0, 4), np.float32), np.empty(0, np.int64))
    rng = np.random.default_rng(1)
    corner = {
        tuple(to_input_moved(white, (96, 96), rule, RandomAffine((0.5, 0.5)), rng).image[95, 95]) for _ in range(9)
    }
    assert corner == {(255, 255, 255), PADDING_BGR if rule == "fit" else (0, 0, 0)}


def test_boxes_that_lost_too_much_are_dropped():
    boxes = np.array(
        [[-70, 0, 30, 10], [-85, 0, 15, 10], [200, 0, 300, 10], [5, 5, 5.5, 50], [5, 5, 6, 50]], np.float32
    )
    whole = Sample(np.zeros((100, 100, 3), np.uint8), boxes, np.arange(5), boxes)
    cut = cut_to_image(whole, 0.2)
    assert cut.labels.tolist() == [0, 4]  # 30 % is kept, 15 % is not, half a pixel is not
    assert cut.boxes[0].tolist() == [0, 0, 30, 10]
    assert cut_to_image(whole, 0.0).labels.tolist() == [0, 1, 4]
    # any part of an ignored region counts
    assert cut.ignored.tolist() == [[0, 0, 30, 10], [0, 0, 15, 10], [5, 5, 5.5, 50], [5, 5, 6, 50]]


def marked(*arguments, **named):
    """As painted(), with an ignored region at each box."""
    sample = painted(*arguments, **named)
    return replace(sample, ignored=sample.boxes)


AUGMENTATIONS = {
    "flip": lambda rng: flip(marked()),
    "crop": lambda rng: RandomCrop(1.0, 0.3, min_visible=0)(marked(), rng),
    "affine": lambda rng: to_input_moved(marked(), (160, 224), "fit", AFFINE, rng, min_visible=0),
    "input": lambda rng: to_input(marked(), (160, 224), "letterbox")[0],
    "mosaic": lambda rng: mosaic(
        [marked(), marked((90, 250), ((5, 5, 60, 70),)), marked(), marked()], (160, 224), "fit", rng, 0
    )[0],
    "color": lambda rng: HsvJitter(0.1, 0.1, 0.1)(ColorJitter(0.2)(marked(), rng), rng),
    "paste": lambda rng: Paste((0.2, 0.3), (2, 3), min_visible=0)(marked(), marked(boxes=((30, 40, 110, 90),)), rng),
}


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_ignored_regions_go_where_boxes_go(name):
    for seed in range(10):
        found = AUGMENTATIONS[name](np.random.default_rng(seed))
        assert found.ignored.dtype == np.float32
        assert len(found.boxes) > 0
        for box in found.boxes:
            assert np.abs(found.ignored - box).max(axis=1).min() < 1e-3


# Colors


def test_colors_leave_boxes_and_the_original_alone():
    sample = painted()
    before = sample.image.copy()
    rng = np.random.default_rng(0)
    for jitter in (ColorJitter(0.3, (0.5, 1.5), (0.2, 1.8)), HsvJitter(0.1, 0.5, 0.5)):
        images = [jitter(sample, rng).image for _ in range(8)]
        assert jitter(sample, rng).boxes is sample.boxes
        assert all(image.dtype == np.uint8 and image.shape == before.shape for image in images)
        assert len({image.tobytes() for image in images}) > 4
    np.testing.assert_array_equal(sample.image, before)


def test_brightness_and_contrast_by_hand():
    """As in nanodet on 0..1: (x + b) * c, here cut to whole gray levels."""
    sample = painted()
    for seed in range(20):
        jittered = ColorJitter(0.2, (0.6, 1.4)).__call__(sample, np.random.default_rng(seed)).image
        rng = np.random.default_rng(seed)
        apply = rng.random(3) < 0.5
        added = rng.uniform(-0.2, 0.2) if apply[0] else 0
        factor = rng.uniform(0.6, 1.4) if apply[1] else 1
        expected = np.clip(255 * (sample.image / 255 + added) * factor, 0, 255)
        np.testing.assert_allclose(jittered, expected, atol=0.51)


def test_saturation_is_that_of_hsv():
    pixel = np.array([[[40, 90, 200]]], np.uint8)
    hue, saturation, value = colorsys.rgb_to_hsv(200 / 255, 90 / 255, 40 / 255)
    for factor in (0.0, 0.5, 1.0, 1.2):
        expected = colorsys.hsv_to_rgb(hue, saturation * factor, value)
        np.testing.assert_allclose(saturated(pixel, factor)[0, 0, ::-1], np.array(expected) * 255, atol=0.51)


def test_hsv_jitter_turns_hues():
    red = Sample(np.full((4, 4, 3), (0, 0, 255), np.uint8), np.empty((0, 4), np.float32), np.empty(0, np.int64))
    rng = np.random.default_rng(0)
    hues = {int(cv2.cvtColor(HsvJitter(hue=0.5)(red, rng).image, cv2.COLOR_BGR2HSV)[0, 0, 0]) for _ in range(200)}
    assert len(hues) > 80
    assert max(hues) < 180
    assert HsvJitter()(red, rng) is red


# Mosaic


def test_mosaic():
    """A rectangle in each image is found in its quarter, of the size that it has without a mosaic."""
    shapes = [(200, 300), (300, 200), (120, 120), (90, 250)]
    for seed in range(30):
        samples = [painted(hw, ((20, 15, 100, 75),), first=label) for label, hw in enumerate(shapes)]
        canvas, middle = mosaic(samples, (160, 224), "stretch", np.random.default_rng(seed))
        assert canvas.size_hw == (320, 448)
        assert assert_boxes_follow_pixels(canvas, range(4)) >= 2
        ratios = [min(160 / h, 224 / w) for h, w in shapes]
        for box, label in zip(canvas.boxes, canvas.labels, strict=True):
            assert box[2] - box[0] <= 80 * ratios[label] + 1
        moved = to_input_moved(canvas, (160, 224), "stretch", AFFINE, np.random.default_rng(seed), start=middle)
        assert_boxes_follow_pixels(moved, range(4))
        still = to_input_moved(canvas, (160, 224), "stretch", RandomAffine(), np.random.default_rng(0), start=middle)
        np.testing.assert_array_equal(still.image, canvas.image[80:240, 112:336])


def test_mosaic_takes_four():
    with pytest.raises(ValueError, match="3 samples: expected 4"):
        mosaic([painted()] * 3, (160, 160), "fit", np.random.default_rng(0))


def test_pasted_objects_lie_where_their_boxes_say():
    """The color of the source fills the middle of every new box and is nowhere beyond a margin around them."""
    source = painted((200, 300), ((100, 40, 160, 160),), first=2)
    counts, reach = [], int(MARGIN * 0.6 * 160 * 1.3) + 2  # pixels, of the largest
    for seed in range(40):
        empty = painted((160, 240), ())
        pasted = Paste((0.1, 0.6), (1, 4))(empty, source, np.random.default_rng(seed))
        assert set(pasted.labels.tolist()) <= {2}
        beyond = np.zeros(pasted.size_hw, bool)
        beyond[reach:-reach, reach:-reach] = True  # of boxes beyond the border the margin may show
        for x1, y1, x2, y2 in pasted.boxes:
            middle = pasted.image[int((y1 + y2) / 2), int((x1 + x2) / 2)]
            np.testing.assert_allclose(middle, COLORS[2], atol=60)  # cut ones fade
        counts.append(len(pasted.boxes))
        for cut in Paste((0.1, 0.6), (1, 4), min_visible=0.0)(empty, source, np.random.default_rng(seed)).boxes:
            x1, y1 = np.maximum(cut[:2] - reach, 0).astype(int)
            x2, y2 = np.ceil(cut[2:] + reach).astype(int)
            beyond[y1:y2, x1:x2] = False
        assert (pasted.image[beyond] == GRAY).all()
        assert (empty.image == GRAY).all()
    assert min(counts) <= 1
    assert max(counts) == 4


def test_pasted_sizes_span_what_was_asked_for():
    source = painted((200, 300), ((100, 40, 160, 160),))  # 60 x 120: a box is twice as high as wide
    heights = []
    for seed in range(200):
        pasted = Paste((0.2, 0.4), (1, 1))(painted((200, 200), ()), source, np.random.default_rng(seed))
        inside = [b for b in pasted.boxes if b[0] > 0 and b[1] > 0 and b[2] < 200 and b[3] < 200]
        for x1, y1, x2, y2 in inside:
            assert (y2 - y1) / (x2 - x1) == pytest.approx(2, rel=1e-4)
            heights.append((y2 - y1) / 200)
    assert 0.2 / 1.31 < min(heights) < 0.21
    assert 0.39 < max(heights) < 0.4 * 1.31


def test_what_is_covered_by_a_paste_is_dropped():
    below = painted((100, 100), ((45, 45, 55, 55),), first=0)
    source = painted((100, 100), ((10, 10, 90, 90),), first=1)
    covered = 0
    for seed in range(60):
        pasted = Paste((0.8, 0.8), (1, 1))(below, source, np.random.default_rng(seed))
        shown = found(pasted.image, 0)
        if shown is None:
            assert 0 not in pasted.labels
            covered += 1
    assert covered > 5


def test_nothing_to_paste_changes_nothing():
    sample = painted()
    assert Paste()(sample, painted(boxes=()), np.random.default_rng(0)) is sample
    thin = Sample(painted().image, np.array([[5.0, 5.0, 5.5, 80.0]], np.float32), np.array([0]))
    assert Paste()(sample, thin, np.random.default_rng(0)) is sample
