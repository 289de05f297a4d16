"""Image files: which files they are, reading and writing them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gfl_edge import optional
from gfl_edge.errors import InputError, SourceError
from gfl_edge.files import write_atomically
from gfl_edge.media.quiet import quiet_opencv
from gfl_edge.ops.preprocess import Image

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


def image_files(folder: Path) -> list[Path]:
    """The image files directly in ``folder``, sorted by name; hidden ones are left out.

    Raises:
        SourceError: there are none.
    """
    found = sorted(path for path in folder.iterdir() if is_image(path) and not path.name.startswith("."))
    if not found:
        raise SourceError(f"{folder} holds no images: expected files ending in {', '.join(IMAGE_SUFFIXES)}")
    return found


def is_image(path: Path) -> bool:
    """Whether the suffix of ``path`` is one of an image file, in upper or lower case."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def read_image(path: Path) -> Image | None:
    """An image file as uint8 ``[H, W, 3]`` BGR, turned as its EXIF says; None if it is not a whole image.

    Gray and 16-bit images are converted, alpha is dropped.
    """
    cv2 = optional.load("cv2")
    try:
        content = path.read_bytes()
        if _is_cut_jpeg(content):
            return None
        with quiet_opencv():  # decoded from memory, as cv2.imread cannot open every file name on Windows
            image: Image | None = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    except (OSError, cv2.error):  # unreadable, empty, or larger than OpenCV's limit
        return None
    return image


def _is_cut_jpeg(content: bytes) -> bool:
    """Whether a JPEG ends before its end: OpenCV would show gray where the rest is missing and call it an image.

    After the last start of scan (FF DA) there must be an end of image (FF D9); scan data cannot contain either.
    """
    return content.startswith(b"\xff\xd8") and content.rfind(b"\xff\xd9") < content.rfind(b"\xff\xda")


def write_image(path: Path, image: Image) -> None:
    """Write ``image`` (uint8 ``[H, W, 3]`` BGR) in the format that the suffix of ``path`` names.

    Raises:
        InputError: the file cannot be written.
    """
    encoded = optional.load("cv2").imencode(path.suffix, image)[1]  # cv2.imwrite cannot open every name on Windows
    try:
        write_atomically(path, encoded.tobytes())
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error}). Choose another output folder") from error
