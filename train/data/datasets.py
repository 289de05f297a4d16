"""Images ready for the network: augmented for training, as at run time for evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.random import Generator
from torch.utils.data import Dataset

from gfl_edge.annotations.checks import size_mismatch
from gfl_edge.annotations.records import NO_OBJECTS, Annotations
from gfl_edge.errors import ImageError
from gfl_edge.media.images import read_image
from gfl_edge.ops.preprocess import Placement
from gfl_edge.spec import ResizeRule
from train.data.augment.mosaic import TILES, mosaic
from train.data.augment.transforms import Sample, to_input, to_input_moved
from train.data.batches import AUGMENT, Draw
from train.data.config import Augmentation


@dataclass(frozen=True, eq=False)
class Example:
    """One image of a batch: the network's input, boxes in its pixels, and where the frame lies in it.

    ``placement`` is None in training: flips, crops and mosaics are none. ``lost`` has images that could not be read, by
    id, and why: where the example's own is among them, it is black and without objects.
    """

    sample: Sample
    image_id: int
    placement: Placement | None = None
    lost: Mapping[int, str] = field(default_factory=dict)

    @property
    def is_lost(self) -> bool:
        """Whether its own image could not be read."""
        return self.image_id in self.lost


def read_sample(annotations: Annotations, index: int, lost: dict[int, str]) -> Sample:
    """An image of checked annotations with its boxes, as they are in the file.

    A file that has gone bad since the checks is added to ``lost``, and gives a black image of its size without objects.
    """
    record = annotations.records[index]
    try:
        image = read_image(record.path)
    except ImageError as error:
        reason = str(error)
    else:
        found = image.shape[0], image.shape[1]
        if record.size_hw is None or record.size_hw == found:
            return Sample(image, record.boxes, record.labels, record.ignored.boxes)
        reason = size_mismatch(record.path, record.size_hw, found)
    lost[record.image_id] = f"{annotations.origin}: {reason}"
    return Sample(np.zeros((*(record.size_hw or (1, 1)), 3), np.uint8), NO_OBJECTS.boxes, NO_OBJECTS.labels)


class TrainingImages(Dataset[Example]):
    """Augmented images. What ``[draw]`` gives depends on the seed and the draw, and on nothing else.

    So it is the same in any worker, any process, and after a restart.

    Args:
        annotations: checked.
        resize: how frames are brought to the network's input.
        augmentation: what is done to them.
        seed: not negative.
    """

    def __init__(self, annotations: Annotations, resize: ResizeRule, augmentation: Augmentation, seed: int) -> None:
        self.annotations, self.resize, self.augmentation, self.seed = annotations, resize, augmentation, seed
        self._flip, self._crop = augmentation.horizontal_flip, augmentation.random_crop
        self._affine, self._colors, self._paste = augmentation.affine, augmentation.colors, augmentation.pasting

    def __len__(self) -> int:
        return len(self.annotations)

    def __getitem__(self, draw: Draw) -> Example:
        rng = np.random.default_rng([AUGMENT, self.seed, draw.epoch, draw.image])
        lost: dict[int, str] = {}
        sample, start = self._composed(draw, rng, lost)
        moved = to_input_moved(
            sample,
            draw.input_hw,
            self.resize,
            self._affine,
            rng,
            short_long=draw.short_long,
            start=start,
            min_visible=self.augmentation.min_visible,
        )
        pasted = self._pasted(moved, rng, lost)
        return Example(pasted, self.annotations.records[draw.image].image_id, lost=lost)

    def _composed(self, draw: Draw, rng: Generator, lost: dict[int, str]) -> tuple[Sample, Placement | None]:
        """A single image, or a mosaic and where it goes in the input."""
        sample = self._varied(draw.image, rng, lost)
        if rng.random() < self.augmentation.mosaic_in(draw.epoch):
            others = rng.integers(len(self), size=TILES - 1).tolist()
            tiles = [sample, *(self._varied(index, rng, lost) for index in others)]
            return mosaic(tiles, draw.input_hw, self.resize, rng, self.augmentation.min_visible)
        return sample, None

    def _pasted(self, sample: Sample, rng: Generator, lost: dict[int, str]) -> Sample:
        """With a probability, groups of objects of other images in it."""
        if self.augmentation.paste > 0 and rng.random() < self.augmentation.paste:  # no draw in recipes without it
            least, most = self.augmentation.paste_groups
            for index in rng.integers(len(self), size=rng.integers(least, most + 1)).tolist():
                sample = self._paste(sample, self._varied(index, rng, lost), rng)
        return sample

    def _varied(self, image: int, rng: Generator, lost: dict[int, str]) -> Sample:
        """One image, cropped, flipped and in other colors; the background is added later, and stays as at run time."""
        sample = self._flip(self._crop(read_sample(self.annotations, image, lost), rng), rng)
        for jitter in self._colors:
            sample = jitter(sample, rng)
        return sample


class EvaluationImages(Dataset[Example]):
    """Images as the run time brings them to the network; boxes are scaled, and none is left out."""

    def __init__(self, annotations: Annotations, resize: ResizeRule) -> None:
        self.annotations, self.resize = annotations, resize

    def __len__(self) -> int:
        return len(self.annotations)

    def __getitem__(self, draw: Draw) -> Example:
        lost: dict[int, str] = {}
        sample = read_sample(self.annotations, draw.image, lost)
        sample, placement = to_input(sample, draw.input_hw, self.resize, draw.short_long)
        return Example(sample, self.annotations.records[draw.image].image_id, placement, lost)
