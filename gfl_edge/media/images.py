"""Image files: which files they are, reading and writing them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gfl_edge import optional
from gfl_edge.errors import ImageError, InputError, SourceError
from gfl_edge.files import read_regular, write_atomically
from gfl_edge.media.formats import Header, read_header
from gfl_edge.media.opencv import quiet_opencv
from gfl_edge.ops.preprocess import Image

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
# OpenCV's own limits, unless OPENCV_IO_MAX_IMAGE_PIXELS, _WIDTH and _HEIGHT raise them
MAX_PIXELS, MAX_SIDE = 2**30, 2**20


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


def read_image(path: Path) -> Image:
    """An image file as uint8 ``[H, W, 3]`` BGR, turned as its EXIF says.

    Gray, palette, CMYK and 16-bit images are converted, alpha is dropped; of several pages or frames the first is read.

    Raises:
        ImageError: it cannot be read or is no whole image; says what the file is.
    """
    cv2 = optional.load("cv2")
    content = _content(path)
    header = read_header(content)
    if header is not None and header.refused:
        raise ImageError(path, f"is {header}: {header.refused}")
    try:
        with quiet_opencv():  # decoded from memory, as cv2.imread cannot open every file name on Windows
            image: Image | None = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise ImageError(path, _why_not(content, header, str(error))) from error
    if image is None:
        raise ImageError(path, _why_not(content, header))
    return image


def image_hw(path: Path) -> tuple[int, int]:
    """(height, width) of what :func:`read_image` gives, in a tenth of the time for most JPEGs.

    A JPEG is followed from its header to its end; where EXIF data may turn the image, and in other formats, the file is
    decoded.

    Raises:
        ImageError: as :func:`read_image`, except that damage within the data of a JPEG is not seen.
    """
    header = read_header(_content(path))
    if header is not None and header.plain and header.size_wh is not None:
        return header.size_wh[1], header.size_wh[0]
    height, width, _ = read_image(path).shape
    return height, width


def _content(path: Path) -> bytes:
    try:
        content = read_regular(path)
    except OSError as error:
        raise ImageError(path, f"cannot be read ({error.strerror or error})") from error
    if not content:
        raise ImageError(path, "is empty (0 bytes). Copy it again")
    return content


def _why_not(content: bytes, header: Header | None, message: str = "") -> str:
    """What an error says of a file that OpenCV did not decode, with its ``message``, if there was one."""
    if header is None:
        return f"is no image that OpenCV can decode: {len(content)} bytes that start with {content[:8]!r}"
    version = optional.load("cv2").__version__
    if header.size_wh is None:
        return f"is {header}, which OpenCV {version} does not decode. Convert it to JPEG or PNG"
    width, height = header.size_wh
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        return (
            f"is {header}: too large, OpenCV decodes at most {MAX_PIXELS} pixels and sides of {MAX_SIDE}. Scale it "
            "down or cut it into tiles"
        )
    if "memory" in message.lower():
        return f"is {header}: there is no memory for its {3 * width * height / 1e9:.1f} GB. Scale it down"
    return (
        f"is {header}, which OpenCV {version} cannot decode: damaged, or of a kind that it does not know. Copy it "
        "again, or convert it to JPEG or PNG"
    )


def write_image(path: Path, image: Image) -> None:
    """Write ``image`` (uint8 ``[H, W, 3]`` BGR) in the format that the suffix of ``path`` names.

    Raises:
        OutputError: the file cannot be written.
        InputError: the format cannot hold the image.
    """
    encoded, content = optional.load("cv2").imencode(path.suffix, image)  # cv2.imwrite cannot open all names on Windows
    if not encoded:
        height, width = image.shape[:2]
        raise InputError(f"{path}: OpenCV cannot write {width}x{height} pixels as {path.suffix}. Choose another format")
    write_atomically(path, content.tobytes(), durable=False)  # detect makes it again
