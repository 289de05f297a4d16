"""Augmentation of colors; boxes stay where they are."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from gfl_edge import optional
from gfl_edge.ops.preprocess import Image
from train.data.augment.transforms import Range, Sample

HUES = 180  # OpenCV's 8-bit hue counts in steps of two degrees


@dataclass(frozen=True)
class ColorJitter:
    """Brightness, contrast and saturation, in this order, each with a probability of one half.

    As RangiLyu/nanodet does in nanodet/data/transform/color.py with the same ranges, except that the result is whole
    gray levels 0..255, as the network gets them from a camera.

    Attributes:
        brightness: at most so much is added or subtracted, in parts of white.
        contrast: factor of all three channels.
        saturation: factor of the saturation (HSV).
    """

    brightness: float = 0.0
    contrast: Range = (1.0, 1.0)
    saturation: Range = (1.0, 1.0)

    def __call__(self, sample: Sample, rng: Generator) -> Sample:
        apply = rng.random(3) < 0.5
        added = rng.uniform(-self.brightness, self.brightness) if apply[0] else 0.0
        factor = rng.uniform(*self.contrast) if apply[1] else 1.0
        image = sample.image
        if added or factor != 1:
            image = _looked_up(image, (np.arange(256) + 255 * added) * factor)
        if apply[2]:
            image = saturated(image, rng.uniform(*self.saturation))
        return replace(sample, image=image)


def saturated(image: Image, factor: float) -> Image:
    """``image`` (uint8 ``[H, W, 3]``) with its HSV saturation times ``factor``.

    A channel lies ``value * saturation`` times something below the brightest, so that those distances are scaled;
    going through 8-bit HSV would round hues to two degrees.
    """
    cv2 = optional.load("cv2")
    blue, green, red = cv2.split(image)
    value = cv2.max(cv2.max(blue, green), red)
    out: Image = cv2.addWeighted(image, factor, cv2.merge((value, value, value)), 1 - factor, 0)
    return out


@dataclass(frozen=True)
class HsvJitter:
    """Hue, saturation and value by random factors, as the YOLO family does.

    Attributes:
        hue: at most this part of the color circle either way.
        saturation: factor between 1 - this and 1 + this.
        value: likewise.
    """

    hue: float = 0.0
    saturation: float = 0.0
    value: float = 0.0

    @property
    def does_nothing(self) -> bool:
        """Whether every part is 0."""
        return not (self.hue or self.saturation or self.value)

    def __call__(self, sample: Sample, rng: Generator) -> Sample:
        if self.does_nothing:
            return sample
        cv2 = optional.load("cv2")
        turn, saturation, value = rng.uniform(-1, 1, 3) * (self.hue, self.saturation, self.value)
        hsv = cv2.cvtColor(sample.image, cv2.COLOR_BGR2HSV)
        hues = (np.arange(256) + round(turn * HUES)) % HUES
        levels = np.stack((hues, np.arange(256) * (1 + saturation), np.arange(256) * (1 + value)), axis=1)
        return replace(sample, image=cv2.cvtColor(_looked_up(hsv, levels), cv2.COLOR_HSV2BGR))


def _looked_up(image: Image, levels: NDArray[np.floating]) -> Image:
    """``image`` with each level replaced by ``levels`` (``[256]`` or, per channel, ``[256, 3]``), rounded, 0..255."""
    table = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
    out: Image = optional.load("cv2").LUT(image, table[None])
    return out
