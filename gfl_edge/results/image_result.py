"""What was found in one image file, by the name and number that files of results call it by."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from gfl_edge.detections import Detections


@dataclass(frozen=True, eq=False)
class ImageResult:
    """One image and what was found in it.

    Attributes:
        path: the image file.
        file_name: its path in files of results, with ``/`` between folders.
        image_id: its number there.
        size_hw: (height, width) in pixels, as the boxes are meant.
        detections: those that count.
    """

    path: Path
    file_name: str
    image_id: int | str
    size_hw: tuple[int, int]
    detections: Detections


def numbered(found: Iterable[tuple[Path, tuple[int, int], Detections]]) -> list[ImageResult]:
    """Images that no annotations number: ids from 1 in their order, names from the folder on that holds them all."""
    found = list(found)
    folder = _common_folder([path for path, _, _ in found])
    return [
        ImageResult(path, relative_name(path, folder), number, size_hw, detections)
        for number, (path, size_hw, detections) in enumerate(found, 1)
    ]


def relative_name(path: Path, folder: Path) -> str:
    """The path of a file from a folder on; as it is where none leads there, as between drives of Windows."""
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:
        return path.absolute().as_posix()


def _common_folder(paths: list[Path]) -> Path:
    try:
        return Path(os.path.commonpath([path.absolute().parent for path in paths] or [Path.cwd()]))
    except ValueError:
        return Path.cwd()
