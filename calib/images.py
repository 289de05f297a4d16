"""The images that a model is calibrated on: chosen reproducibly, prepared as at run time."""

from __future__ import annotations

import hashlib
import logging
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gfl_edge.errors import ImageError, InputError
from gfl_edge.media.images import IMAGE_SUFFIXES, read_image
from gfl_edge.ops.preprocess import single_input
from gfl_edge.spec import ModelSpec

logger = logging.getLogger(__name__)

MIN_IMAGES = 16  # with fewer, the range of an activation is that of a few scenes


@dataclass(frozen=True)
class CalibrationImages:
    """A choice of images.

    Attributes:
        folder: where they lie.
        names: in the order of their use, relative to ``folder``.
        skipped: files that were drawn but cannot be used; the log says why.
        digest: sha256 over names and contents, in order.
    """

    folder: Path
    names: tuple[str, ...]
    skipped: tuple[str, ...]
    digest: str

    def __len__(self) -> int:
        return len(self.names)

    def inputs(self, spec: ModelSpec) -> Iterator[NDArray[np.uint8]]:
        """Each image as the network's input, uint8 ``[1, H, W, 3]`` BGR."""
        for name in self.names:
            yield single_input(read_image(self.folder / name), spec)


def check_folder(folder: Path) -> None:
    """Raise InputError where there is no such folder."""
    if not folder.is_dir():
        raise InputError(
            f"{folder}: no such folder of calibration images. Give one with --images, or --calib-images of "
            "export/to_trt.py"
        )


def choose_images(folder: str | Path, count: int, seed: int = 0) -> CalibrationImages:
    """Draw ``count`` readable images from a folder and the folders in it; all of them where there are fewer.

    The same files, count and seed give the same choice in the same order on every machine.

    Args:
        folder: searched for files with the suffix of an image; hidden ones are left out.
        count: how many are wanted, at least ``MIN_IMAGES``.
        seed: of the choice.

    Raises:
        InputError: no such folder, ``count`` too small, or fewer than ``MIN_IMAGES`` readable images.
    """
    folder = Path(folder)
    check_folder(folder)
    if count < MIN_IMAGES:
        raise InputError(f"--num-images {count}: expected at least {MIN_IMAGES}")
    files = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    )
    random.Random(seed).shuffle(files)
    names: list[str] = []
    skipped: list[str] = []
    reasons: list[str] = []
    digest = hashlib.sha256()
    for name in files:
        if len(names) == count:
            break
        try:
            read_image(folder / name)
        except ImageError as error:
            logger.warning("left out: %s", error)
            skipped.append(name)
            reasons.append(str(error))
            continue
        names.append(name)
        digest.update(f"{name}\n".encode() + (folder / name).read_bytes())
    if len(names) < MIN_IMAGES:
        unreadable = f", {len(skipped)} more cannot be used ({'; '.join(reasons[:3])})" if skipped else ""
        raise InputError(
            f"{folder} holds {len(names)} readable images{unreadable}: calibration needs at least {MIN_IMAGES}, "
            "better 128, of what the detector is to see"
        )
    return CalibrationImages(folder, tuple(names), tuple(skipped), digest.hexdigest())
