"""The size of an image file without decoding it, where that is safe."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from gfl_edge.media.images import read_image

_NO_FRAME = (0xC4, 0xC8, 0xCC)  # of the markers C0..CF, those that start no frame
_EXIF = b"Exif\0\0"


def image_hw(path: Path) -> tuple[int, int] | None:
    """(height, width) that :func:`gfl_edge.media.images.read_image` gives; None if the file is not an image.

    A JPEG without EXIF data is measured by its header, which takes a hundredth of the time. EXIF data may turn the
    image, so such files and other formats are decoded.
    """
    try:
        with path.open("rb") as file:
            size = _plain_jpeg_hw(file)
    except OSError:
        return None
    if size is None:
        image = read_image(path)
        size = None if image is None else (image.shape[0], image.shape[1])
    return size


def _plain_jpeg_hw(file: BinaryIO) -> tuple[int, int] | None:
    """(height, width) of a JPEG without EXIF data; None for everything else."""
    if file.read(2) != b"\xff\xd8":
        return None
    while len(head := file.read(4)) == 4 and head[0] == 0xFF:
        marker, length = head[1], int.from_bytes(head[2:], "big")
        body = file.read(length - 2) if length >= 2 else b""
        if marker == 0xE1 and body.startswith(_EXIF):
            return None
        if 0xC0 <= marker <= 0xCF and marker not in _NO_FRAME and len(body) >= 5:
            height, width = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
            return (height, width) if height and width else None
    return None
