"""The images that a measurement runs on: files of a folder, or generated ones."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gfl_edge import optional
from gfl_edge.errors import ImageError, SourceError
from gfl_edge.media.images import image_files, read_image
from gfl_edge.ops.preprocess import Image
from gfl_edge.report.schema import FramesUsed

logger = logging.getLogger(__name__)

GENERATED = 8
GENERATED_HW = (800, 1333)  # the largest of the papers' inputs
MAX_IN_MEMORY = 64
_RECTANGLES = 40


@dataclass(frozen=True)
class FrameSet:
    """Images in memory, and the files that they come from.

    Attributes:
        images: uint8 ``[h, w, 3]`` BGR each.
        files: where they were read, in the same order; None: they were generated.
        seed: of generated ones.
    """

    images: tuple[Image, ...]
    files: tuple[Path, ...] | None
    seed: int

    def describe(self) -> FramesUsed:
        """For the report."""
        sizes = sorted({(image.shape[0], image.shape[1]) for image in self.images})
        return FramesUsed(
            origin="generated" if self.files is None else "files",
            folder=None if self.files is None else self.files[0].parent.name,
            count=len(self.images),
            seed=self.seed if self.files is None else None,
            smallest_hw=sizes[0],
            largest_hw=sizes[-1],
        )


def load_frames(folder: str | Path | None, seed: int = 0) -> FrameSet:
    """The first images of a folder, or generated ones.

    Raises:
        SourceError: no such folder, or none of its images can be read.
    """
    if folder is None:
        generator = np.random.default_rng(seed)
        return FrameSet(tuple(generated_frame(generator, GENERATED_HW) for _ in range(GENERATED)), None, seed)
    folder = Path(folder)
    if not folder.is_dir():
        raise SourceError(f"{folder}: no such folder of images. Give one with --images, or leave it out")
    files, images, reasons = image_files(folder)[:MAX_IN_MEMORY], {}, []
    for path in files:
        try:
            images[path] = read_image(path)
        except ImageError as error:
            reasons.append(str(error))
            logger.warning("left out: %s", error)
    if not images:
        raise SourceError(f"none of the first {len(files)} images under {folder} can be used: {reasons[0]}")
    return FrameSet(tuple(images.values()), tuple(images), seed)


def generated_frame(generator: np.random.Generator, size_hw: tuple[int, int]) -> Image:
    """Rectangles of random colors on a smooth ground with some noise, uint8 ``[h, w, 3]``."""
    cv2 = optional.load("cv2")
    height, width = size_hw
    ground = generator.integers(40, 216, (4, 6, 3)).astype(np.float32)
    image = cv2.resize(ground, (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(_RECTANGLES):
        x, y = int(generator.integers(0, width)), int(generator.integers(0, height))
        size = generator.integers(8, max(9, min(size_hw) // 3), 2).tolist()
        color = generator.integers(0, 256, 3).tolist()
        cv2.rectangle(image, (x, y), (x + size[0], y + size[1]), color, cv2.FILLED)
    noisy = image + generator.normal(0, 6, image.shape)
    found: Image = np.clip(noisy, 0, 255).astype(np.uint8)
    return found
