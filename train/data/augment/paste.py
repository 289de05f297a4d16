"""Objects of other images pasted in, in groups: crowds where every training image shows an object or two.

After "Cut, Paste and Learn" (Dwibedi et al., ICCV 2017), for annotations without masks: what is pasted is the object's
box with a soft oval edge.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from gfl_edge import optional
from gfl_edge.ops.boxes import areas
from gfl_edge.ops.preprocess import Boxes, Image
from train.data.augment.transforms import MIN_VISIBLE, Range, Sample, cut_to_image, flip

MARGIN = 0.15  # of the box's sides, around it, over which the edge fades
ROUNDNESS = 3.0  # exponent of the edge's superellipse: 2 is an ellipse, infinity the box
SIZE_SPREAD = 1.3  # sizes within a group differ by up to this factor either way
MIN_PX = 6  # longer side of a pasted box; smaller ones show nothing


@dataclass(frozen=True)
class Paste:
    """Paste copies of an object side by side.

    Attributes:
        size: longer side of the box in parts of the image's shorter side, drawn so that its logarithm is uniform.
        copies: least and most copies in a group.
        min_visible: boxes, also of the image itself, of which less is left uncovered or inside are dropped.
    """

    size: Range = (0.06, 0.5)
    copies: tuple[int, int] = (1, 5)
    min_visible: float = MIN_VISIBLE

    def __call__(self, sample: Sample, source: Sample, rng: Generator) -> Sample:
        """``sample`` with a group of one of the objects of ``source``; as it is if that has none."""
        if not len(source.boxes):
            return sample
        chosen = int(rng.integers(len(source.boxes)))
        object_ = _cut_out(source, chosen)
        if object_ is None:
            return sample
        image = sample.image.copy()
        boxes, labels, ignored = sample.boxes, sample.labels, sample.ignored
        visible = np.ones(len(boxes))
        for box in self._places(source.boxes[chosen], sample.size_hw, rng):
            shown = flip(object_) if rng.random() < 0.5 else object_
            _blend(image, shown, box)
            visible = np.maximum(visible - _covered(boxes, box), 0)
            boxes = np.concatenate([boxes, box[None]])
            labels = np.concatenate([labels, source.labels[chosen : chosen + 1]])
            ignored = np.concatenate([ignored, _pasted_regions(shown, box)])
            visible = np.append(visible, 1.0)
        kept = visible >= self.min_visible
        return cut_to_image(Sample(image, boxes[kept], labels[kept], ignored), self.min_visible)

    def _places(self, box: Boxes, size_hw: tuple[int, int], rng: Generator) -> list[Boxes]:
        """Where the copies go: boxes of about the same size beside each other, from one side to the other."""
        sides = (box[2:] - box[:2]).astype(np.float64)
        low, high = np.log(self.size)
        longest = np.exp(rng.uniform(low, high)) * min(size_hw)
        x, y = rng.uniform(0, size_hw[1]), rng.uniform(0, size_hw[0])
        places = []
        for _ in range(rng.integers(self.copies[0], self.copies[1] + 1)):
            factor = SIZE_SPREAD ** rng.uniform(-1, 1)
            width, height = sides * max(longest * factor, MIN_PX) / sides.max()
            places.append(np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2], np.float32))
            x += width * rng.uniform(0.5, 1.8)
            y += height * rng.uniform(-0.3, 0.3)
        return places


def _cut_out(source: Sample, chosen: int) -> Sample | None:
    """The object with a margin around its box, as far as the image reaches, its box in the pixels of what was cut."""
    x1, y1, x2, y2 = source.boxes[chosen].tolist()
    margin_x, margin_y = MARGIN * (x2 - x1), MARGIN * (y2 - y1)
    height, width = source.size_hw
    left, top = max(0, int(x1 - margin_x)), max(0, int(y1 - margin_y))
    right, bottom = min(width, int(np.ceil(x2 + margin_x))), min(height, int(np.ceil(y2 + margin_y)))
    if min(x2 - x1, y2 - y1) < 1 or max(x2 - x1, y2 - y1) < MIN_PX:
        return None
    only = replace(source, boxes=source.boxes[chosen : chosen + 1], labels=source.labels[chosen : chosen + 1])
    image, corner = np.ascontiguousarray(source.image[top:bottom, left:right]), np.array((left, top) * 2, np.float32)
    moved = only.moved(image, lambda boxes: boxes - corner)
    return replace(moved, ignored=cut_to_image(moved).ignored)


def _pasted_regions(shown: Sample, box: Boxes) -> Boxes:
    """The ignored regions of the object's surroundings, when its box is pasted to ``box``."""
    own = shown.boxes[0]
    scale = (box[2:] - box[:2]) / (own[2:] - own[:2])
    return np.asarray((shown.ignored - np.tile(own[:2], 2)) * np.tile(scale, 2) + np.tile(box[:2], 2), np.float32)


def _blend(image: Image, shown: Sample, box: Boxes) -> None:
    """Paint the object so that its box lies at ``box``, in place."""
    cv2 = optional.load("cv2")
    own = shown.boxes[0]
    scale = (box[2:] - box[:2]) / (own[2:] - own[:2])
    height, width = (max(1, round(side * factor)) for side, factor in zip(shown.size_hw, scale[::-1], strict=True))
    method = cv2.INTER_AREA if scale.max() < 1 else cv2.INTER_LINEAR
    small = cv2.resize(shown.image, (width, height), interpolation=method)
    left, top = (round(value) for value in (box[:2] - own[:2] * scale).tolist())
    x1, y1, x2, y2 = max(left, 0), max(top, 0), min(left + width, image.shape[1]), min(top + height, image.shape[0])
    if x1 >= x2 or y1 >= y2:
        return
    alpha = _soft_edge(np.arange(x1, x2), np.arange(y1, y2), box)[..., None]
    part = image[y1:y2, x1:x2].astype(np.float32)
    new = small[y1 - top : y2 - top, x1 - left : x2 - left]
    image[y1:y2, x1:x2] = np.rint(part + alpha * (new - part)).astype(np.uint8)


def _soft_edge(columns: NDArray[np.int64], rows: NDArray[np.int64], box: Boxes) -> NDArray[np.float32]:
    """How much of the object shows: 1 inside, 0.5 where the oval touches the box, 0 beyond the margin; ``[y, x]``."""
    x1, y1, x2, y2 = box.tolist()
    across = np.abs((columns + 0.5 - (x1 + x2) / 2) / ((x2 - x1) / 2))
    down = np.abs((rows + 0.5 - (y1 + y2) / 2) / ((y2 - y1) / 2))
    radius = (across[None] ** ROUNDNESS + down[:, None] ** ROUNDNESS) ** (1 / ROUNDNESS)
    return np.clip((1 + MARGIN - radius) / (2 * MARGIN), 0, 1).astype(np.float32)


def _covered(boxes: Boxes, by: Boxes) -> NDArray[np.float64]:
    """The part of each of ``boxes`` that lies under ``by``."""
    sides = np.minimum(boxes[:, 2:], by[2:]) - np.maximum(boxes[:, :2], by[:2])
    return np.asarray(sides.clip(0).prod(axis=1) / np.maximum(areas(boxes), 1e-6), np.float64)
