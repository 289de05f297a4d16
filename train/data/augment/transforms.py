"""Augmentation of one image with its boxes: flip, crop, and random placement in the network's input.

Every transform is called with a sample and the numpy Generator that all of its chance comes from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from gfl_edge import optional
from gfl_edge.annotations.records import Labels, clip
from gfl_edge.ops.boxes import areas
from gfl_edge.ops.preprocess import (
    PADDING_BGR,
    Boxes,
    Image,
    Placement,
    interpolation,
    limit_hw,
    place,
    place_frame,
    resize_into,
)
from gfl_edge.spec import ResizeRule

Floats = NDArray[np.float64]
Range = tuple[float, float]  # low, high

MIN_VISIBLE = 0.2  # part of its area that a box keeps at least, or it is dropped: less is no longer recognizable
MIN_SIDE_PX = 1.0  # of a box: narrower ones hold no pixel


@dataclass(frozen=True, eq=False)
class Sample:
    """An image with its objects.

    Attributes:
        image: uint8 ``[H, W, 3]`` BGR, contiguous.
        boxes: float32 ``[n, 4]`` xyxy in its pixels, inside it.
        labels: int64 ``[n]``, class indices.
        ignored: float32 ``[m, 4]`` xyxy, regions that are no background, see :class:`train.structures.Target`.
    """

    image: Image
    boxes: Boxes
    labels: Labels
    ignored: Boxes = field(default_factory=lambda: np.zeros((0, 4), np.float32))

    @property
    def size_hw(self) -> tuple[int, int]:
        """(height, width) of the image."""
        return self.image.shape[0], self.image.shape[1]

    def moved(self, image: Image, change: Callable[[Boxes], Boxes]) -> Sample:
        """Another image of the same objects, whose boxes and ignored regions are where ``change`` puts them."""
        return Sample(image, change(self.boxes), self.labels, change(self.ignored))


def cut_to_image(sample: Sample, min_visible: float = MIN_VISIBLE) -> Sample:
    """``sample``, whose boxes and ignored regions may reach out of its image, with both clipped.

    Dropped are boxes of which less than ``min_visible`` of the area is left, or a side under ``MIN_SIDE_PX``. Of an
    ignored region any part counts.
    """
    inside, ignored = clip(sample.boxes, sample.size_hw), clip(sample.ignored, sample.size_hw)
    sides = inside[:, 2:] - inside[:, :2]
    keep = (areas(inside) >= np.float32(min_visible) * areas(sample.boxes)) & (sides >= MIN_SIDE_PX).all(axis=1)
    return Sample(sample.image, inside[keep], sample.labels[keep], ignored[areas(ignored) > 0])


def flip(sample: Sample) -> Sample:
    """``sample`` with left and right exchanged."""
    width = np.float32(sample.image.shape[1])

    def turned(boxes: Boxes) -> Boxes:
        turned = boxes.copy()
        turned[:, [0, 2]] = width - boxes[:, [2, 0]]
        return turned

    return sample.moved(np.ascontiguousarray(sample.image[:, ::-1]), turned)


@dataclass(frozen=True)
class HorizontalFlip:
    """Flip with a probability."""

    probability: float = 0.5

    def __call__(self, sample: Sample, rng: Generator) -> Sample:
        return flip(sample) if rng.random() < self.probability else sample


@dataclass(frozen=True)
class RandomCrop:
    """Cut out a window that holds at least one box whole, so that no image loses all its objects.

    Attributes:
        probability: of cropping at all.
        min_side: least width and height of the window, in parts of the image's.
        min_visible: of the other boxes, those that keep less of their area are dropped.
    """

    probability: float = 0.5
    min_side: float = 0.5
    min_visible: float = MIN_VISIBLE

    def __call__(self, sample: Sample, rng: Generator) -> Sample:
        if rng.random() >= self.probability:
            return sample
        height, width = sample.size_hw
        anchor = sample.boxes[rng.integers(len(sample.boxes))] if len(sample.boxes) else np.zeros(4, np.float32)
        left, right = self._span(width, anchor[0], anchor[2], rng)
        top, bottom = self._span(height, anchor[1], anchor[3], rng)
        image = np.ascontiguousarray(sample.image[top:bottom, left:right])
        shift = np.array((left, top) * 2, np.float32)
        return cut_to_image(sample.moved(image, lambda boxes: boxes - shift), self.min_visible)

    def _span(self, side: int, low: float, high: float, rng: Generator) -> tuple[int, int]:
        """Start and end of a window along a side of ``side`` pixels that holds ``low`` to ``high``."""
        inner_low, inner_high = int(np.floor(low)), int(np.ceil(high))
        length = max(int(np.ceil(side * rng.uniform(self.min_side, 1))), inner_high - inner_low)
        start = int(rng.integers(max(0, inner_high - length), min(inner_low, side - length) + 1))
        return start, start + length


@dataclass(frozen=True)
class RandomAffine:
    """Scale, stretch and shift the image inside the network's input, each with a probability of one half.

    As RangiLyu/nanodet does in nanodet/data/transform/warp.py, where the same ranges have the same names: about the
    image's center, drawn uniformly, and joined with the resize so that pixels are interpolated once.

    Attributes:
        scale: factor of both sides.
        stretch_x: factor of the width.
        stretch_y: factor of the height.
        translate: shift, at most this part of the image's width and height either way.
    """

    scale: Range = (1.0, 1.0)
    stretch_x: Range = (1.0, 1.0)
    stretch_y: Range = (1.0, 1.0)
    translate: float = 0.0

    def move(self, placement: Placement, input_hw: tuple[int, int], rng: Generator) -> Placement:
        """Where ``placement`` in an input of ``input_hw`` pixels puts the image after a random change."""
        factor, shift = self._draw(rng)
        if (factor == 1).all() and not shift.any():
            return placement
        scale, offset = np.array(placement.scale_xy), np.array(placement.offset_xy)
        placed = np.array(placement.frame_hw[::-1]) * scale
        center = offset + placed / 2
        offset = (offset - center) * factor + center
        offset += shift * np.minimum(placed, input_hw[::-1])
        (scale_x, scale_y), (x, y) = (scale * factor).tolist(), offset.tolist()
        return Placement(placement.frame_hw, (scale_x, scale_y), (x, y))

    def _draw(self, rng: Generator) -> tuple[Floats, Floats]:
        """Factors and shifts, in parts of the image, of x and y."""
        factor, shift = np.ones(2), np.zeros(2)
        if _half(rng):
            factor *= rng.uniform(*self.scale)
        if _half(rng):
            factor *= (rng.uniform(*self.stretch_x), rng.uniform(*self.stretch_y))
        if _half(rng):
            shift = rng.uniform(-self.translate, self.translate, 2)
        return factor, shift


def _half(rng: Generator) -> bool:
    return bool(rng.random() < 0.5)


def to_input(
    sample: Sample, input_hw: tuple[int, int], rule: ResizeRule, short_long: tuple[int, int] | None = None
) -> tuple[Sample, Placement]:
    """Bring ``sample`` to the network's input by the very code of the run time; every box is kept."""
    image = np.empty((*input_hw, 3), np.uint8)
    placement = resize_into(sample.image, image, rule, short_long)
    moved = sample.moved(image, lambda boxes: placed_boxes(boxes, placement))
    return replace(moved, labels=sample.labels.copy()), placement


def to_input_moved(
    sample: Sample,
    input_hw: tuple[int, int],
    rule: ResizeRule,
    affine: RandomAffine,
    rng: Generator,
    *,
    short_long: tuple[int, int] | None = None,
    start: Placement | None = None,
    min_visible: float = MIN_VISIBLE,
) -> Sample:
    """Bring ``sample`` to the network's input of ``input_hw`` pixels, randomly moved.

    Args:
        sample: as read, flipped, cropped, or a mosaic.
        input_hw: height and width.
        rule: how it gets there without the change.
        affine: the random change.
        rng: of the change.
        short_long: pixels that its sides may have at most, without the change; None: as many as fit.
        start: where the sample goes without the change, instead: the middle of a mosaic.
        min_visible: boxes that keep less of their area inside the input are dropped.
    """
    start = start or start_placement(sample.size_hw, input_hw, rule, short_long)
    placement = affine.move(start, input_hw, rng)
    if placement == place_frame(sample.size_hw, input_hw, rule, short_long):
        image = to_input(sample, input_hw, rule, short_long)[0].image  # not moved, and no crop of another shape
    else:
        image = warp(sample.image, input_hw, placement, rule)
    return cut_to_image(sample.moved(image, lambda boxes: placed_boxes(boxes, placement)), min_visible)


def start_placement(
    frame_hw: tuple[int, int], input_hw: tuple[int, int], rule: ResizeRule, short_long: tuple[int, int] | None = None
) -> Placement:
    """Where a frame goes by ``rule``; with ``short_long`` its sides have at most these pixels, and fit the input."""
    if short_long is None:
        return place(frame_hw, input_hw, rule)
    limit_height, limit_width = limit_hw(frame_hw, short_long)
    return place(frame_hw, input_hw, rule, (min(limit_height, input_hw[0]), min(limit_width, input_hw[1])))


def placed_boxes(boxes: Boxes, placement: Placement) -> Boxes:
    """Boxes ``[n, 4]`` xyxy from frame pixels to input pixels, not clipped; the way back is Placement.to_frame."""
    scale, offset = np.array(placement.scale_xy * 2), np.array(placement.offset_xy * 2)
    return np.asarray(boxes * scale + offset, np.float32)


def warp(image: Image, input_hw: tuple[int, int], placement: Placement, rule: ResizeRule) -> Image:
    """``image`` as ``placement`` puts it into ``input_hw`` pixels, by ``rule``'s interpolation, on its background.

    Where nothing was moved this is what :func:`gfl_edge.ops.preprocess.resize_into` gives, to rounding: there, too, a
    letterbox maps pixel indices, and the other rules the edges of pixels, half a pixel away.
    """
    cv2 = optional.load("cv2")
    scale, offset = np.array(placement.scale_xy), np.array(placement.offset_xy)
    if rule != "letterbox":
        offset = offset + (scale - 1) / 2
    matrix = np.array([[scale[0], 0, offset[0]], [0, scale[1], offset[1]]])
    out = np.empty((*input_hw, 3), np.uint8)
    border = {"borderMode": cv2.BORDER_CONSTANT, "borderValue": background(rule)}
    cv2.warpAffine(image, matrix, input_hw[::-1], dst=out, flags=interpolation(rule), **border)
    return out


def background(rule: ResizeRule) -> tuple[int, int, int]:
    """The color, BGR, beside the image: as the run time pads, and black where it never does."""
    return PADDING_BGR if rule == "fit" else (0, 0, 0)
