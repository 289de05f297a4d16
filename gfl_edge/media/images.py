"""Image files: which files they are, reading and writing them."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np

from gfl_edge import optional
from gfl_edge.errors import ImageError, InputError, SourceError
from gfl_edge.files import read_regular, write_atomically
from gfl_edge.media.formats import Header, read_header
from gfl_edge.media.limits import MAX_BYTES_PER_PIXEL, max_pixels, too_large
from gfl_edge.media.opencv import quiet_opencv
from gfl_edge.ops.preprocess import Image
from gfl_edge.redact import shown_source

# What no image would be read for, so that none is to be left out for it
OF_THE_MACHINE = {
    errno.EMFILE: "Let the command have more files open (ulimit -n)",
    errno.ENFILE: "The system has too many files open: close some of its programs",
    errno.ENOMEM: "Give it more memory",
}
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
# OpenCV's own limits, unless OPENCV_IO_MAX_IMAGE_PIXELS, _WIDTH and _HEIGHT raise them
OPENCV_MAX_PIXELS, OPENCV_MAX_SIDE = 2**30, 2**20
MAX_BELOW = 100  # folders in a folder without images that are looked into, and names in each


def image_files(folder: Path) -> list[Path]:
    """The image files directly in ``folder``, sorted by name; hidden ones are left out.

    Raises:
        SourceError: there are none.
    """
    try:
        names = sorted(name for name in os.listdir(folder) if is_image(name) and not name.startswith("."))  # noqa: PTH208
    except OSError as error:
        raise SourceError(f"{shown_source(folder)} cannot be listed ({error.strerror or error})") from None
    found = [folder / name for name in names]
    if not found:
        below = next(_below(folder), None)
        raise SourceError(
            f"{folder} holds no images: expected files ending in {', '.join(IMAGE_SUFFIXES)}"
            + (f". Did you mean {below}?" if below else "")
        )
    return found


def _below(folder: Path) -> Iterator[Path]:
    """Folders in ``folder`` that hold images, for whoever named the one above."""
    with suppress(OSError):
        for inner in sorted(path for path in folder.iterdir() if path.is_dir())[:MAX_BELOW]:
            if any(is_image(path.name) for path in itertools.islice(inner.iterdir(), MAX_BELOW)):
                yield inner


def is_image(path: str | Path) -> bool:
    """Whether the suffix of ``path`` is one of an image file, in upper or lower case."""
    return os.path.splitext(path)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122  folders have a million names


def read_image(path: Path) -> Image:
    """An image file as uint8 ``[H, W, 3]`` BGR, turned as its EXIF says.

    Gray, palette, CMYK and 16-bit images are converted, alpha is dropped; of several pages or frames the first is read.
    Nothing is decoded before the header says how large it will be: at most :func:`gfl_edge.media.limits.max_pixels`.

    Raises:
        ImageError: it cannot be read, is too large or is no whole image; says what the file is.
        SourceError: no image could be read now, as this process has too many files open, or no memory.
    """
    return decode_image(path, _content(path))


def decode_image(path: str | Path, content: bytes) -> Image:
    """What :func:`read_image` makes of the content of a file; ``path`` is what errors call it.

    Raises:
        ImageError: it is too large or no whole image; says what the file is.
    """
    cv2 = optional.load("cv2")
    header = _checked_header(path, content)
    try:
        with quiet_opencv():  # decoded from memory, as cv2.imread cannot open every file name on Windows
            image: Image | None = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise ImageError(path, _why_not(header, str(error))) from error
    if image is None:
        raise ImageError(path, _why_not(header))
    return image


def image_hw(path: Path) -> tuple[int, int]:
    """(height, width) of what :func:`read_image` gives, in a tenth of the time for most JPEGs.

    A JPEG is followed from its header to its end; where EXIF data may turn the image, and in other formats, the file is
    decoded.

    Raises:
        ImageError: as :func:`read_image`, except that damage within the data of a JPEG is not seen.
    """
    header = _checked_header(path, _content(path))
    if header.plain and header.size_wh is not None:
        return header.size_wh[1], header.size_wh[0]
    height, width, _ = read_image(path).shape
    return height, width


def _content(path: Path) -> bytes:
    try:
        return read_regular(path, MAX_BYTES_PER_PIXEL * max_pixels())
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        if advice := OF_THE_MACHINE.get(getattr(error, "errno", None) or 0):
            raise SourceError(f"{path} cannot be read ({reason}). {advice}") from error
        raise ImageError(path, f"cannot be read ({reason})") from error


def reason_of(error: Exception) -> str:
    """Why an image cannot be used, for a line that names it."""
    return f"it {error.reason}" if isinstance(error, ImageError) else str(error)


def _checked_header(path: str | Path, content: bytes) -> Header:
    """What the file is, if it may be decoded."""
    if not content:
        raise ImageError(path, "is empty (0 bytes). Copy it again")
    header = read_header(content)
    if header is None:
        raise ImageError(
            path, f"is no image that OpenCV can decode: {len(content)} bytes that start with {content[:8]!r}"
        )
    if header.refused:
        raise ImageError(path, f"is {header}: {header.refused}")
    if header.size_wh is None:
        version = optional.load("cv2").__version__
        raise ImageError(path, f"is {header}, which OpenCV {version} does not decode. Convert it to JPEG or PNG")
    if reason := too_large(*header.size_wh):
        raise ImageError(path, f"is {header}: {reason}")
    return header


def _why_not(header: Header, message: str = "") -> str:
    """What an error says of a file that OpenCV did not decode, with its ``message``, if there was one."""
    assert header.size_wh is not None  # see _checked_header
    version = optional.load("cv2").__version__
    width, height = header.size_wh
    if width * height > OPENCV_MAX_PIXELS or max(width, height) > OPENCV_MAX_SIDE:
        return (
            f"is {header}: too large, OpenCV decodes at most {OPENCV_MAX_PIXELS} pixels and sides of "
            f"{OPENCV_MAX_SIDE}. Scale it down or cut it into tiles"
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
        InputError: the format cannot hold the image, or the suffix names none.
    """
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        raise InputError(f"{path}: expected the name of an image, ending in {', '.join(IMAGE_SUFFIXES)}")
    encoded, content = optional.load("cv2").imencode(path.suffix, image)  # cv2.imwrite cannot open all names on Windows
    if not encoded:
        height, width = image.shape[:2]
        raise InputError(f"{path}: OpenCV cannot write {width}x{height} pixels as {path.suffix}. Choose another format")
    write_atomically(path, content.tobytes(), durable=False)  # detect makes it again
