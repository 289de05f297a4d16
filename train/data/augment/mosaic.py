"""Four images in one: more objects, in more surroundings, per batch."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from numpy.random import Generator

from gfl_edge import optional
from gfl_edge.ops.preprocess import Placement, interpolation
from gfl_edge.spec import ResizeRule
from train.data.augment.transforms import MIN_VISIBLE, Sample, background, cut_to_image, placed_boxes

TILES = 4


def mosaic(
    samples: Sequence[Sample],
    input_hw: tuple[int, int],
    rule: ResizeRule,
    rng: Generator,
    min_visible: float = MIN_VISIBLE,
) -> tuple[Sample, Placement]:
    """Put four samples around a random point of a canvas of twice the input's height and width.

    Each is resized with its aspect ratio to fit the input, as YOLOX and YOLOv5 do, so that objects keep about the size
    they have without a mosaic.

    Args:
        samples: four: upper left, upper right, lower left, lower right of the point, which each touches with a corner.
        input_hw: height and width of the network's input.
        rule: sets the color of what stays empty, and how pixels are interpolated.
        rng: draws the point from the middle half of the canvas.
        min_visible: boxes that keep less of their area are dropped.

    Returns:
        The canvas with its objects, and the placement that takes its middle as the network's input.
    """
    if len(samples) != TILES:
        raise ValueError(f"{len(samples)} samples: expected {TILES}")
    height, width = input_hw
    canvas = np.empty((2 * height, 2 * width, 3), np.uint8)
    canvas[...] = background(rule)
    center_x, center_y = round(rng.uniform(0.5, 1.5) * width), round(rng.uniform(0.5, 1.5) * height)
    tiles = []
    for index, sample in enumerate(samples):
        resized, scale_xy = _fitted(sample, input_hw, rule)
        tile_height, tile_width = resized.shape[:2]
        x = center_x - tile_width if index % 2 == 0 else center_x
        y = center_y - tile_height if index < 2 else center_y
        top, bottom = max(y, 0), min(y + tile_height, 2 * height)
        left, right = max(x, 0), min(x + tile_width, 2 * width)
        canvas[top:bottom, left:right] = resized[top - y : bottom - y, left - x : right - x]
        to_canvas = functools.partial(placed_boxes, placement=Placement(sample.size_hw, scale_xy, (x, y)))
        tiles.append(cut_to_image(sample.moved(canvas, to_canvas), min_visible))
    names = ("boxes", "labels", "ignored")
    boxes, labels, ignored = (np.concatenate([getattr(tile, name) for tile in tiles]) for name in names)
    middle = Placement((2 * height, 2 * width), (1.0, 1.0), (-width / 2, -height / 2))
    return Sample(canvas, boxes, labels, ignored), middle


def _fitted(sample: Sample, input_hw: tuple[int, int], rule: ResizeRule) -> tuple[np.ndarray, tuple[float, float]]:
    """The image resized to fit ``input_hw``, and the scale of x and y, which differ by the rounding to whole pixels."""
    height, width = sample.size_hw
    ratio = min(input_hw[0] / height, input_hw[1] / width)
    new_height, new_width = max(1, round(height * ratio)), max(1, round(width * ratio))
    cv2 = optional.load("cv2")
    resized = cv2.resize(sample.image, (new_width, new_height), interpolation=interpolation(rule))
    return resized, (new_width / width, new_height / height)
