"""Image files, by their headers and decoded, and folders of them as sources."""

from __future__ import annotations

from pathlib import Path

from gfl_edge.media.images import image_hw, read_image
from gfl_edge.media.opening import open_source
from tests.fuzz.reader import Reader


def seeds() -> list[bytes]:
    """Of every format, small."""
    import cv2
    import numpy as np

    from tests.support.media_files import jpeg_with_exif

    image = np.random.default_rng(0).integers(0, 255, (9, 14, 3), np.uint8)

    def encoded(suffix: str, *settings: int) -> bytes:
        return bytes(cv2.imencode(suffix, image, settings)[1])

    jpeg = encoded(".jpg")
    return [
        jpeg,
        jpeg_with_exif(jpeg, 6, jpeg),
        encoded(".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        *(encoded(suffix) for suffix in (".png", ".bmp", ".webp", ".tif")),
        encoded(".webp", cv2.IMWRITE_WEBP_QUALITY, 101),
        b"GIF89a\x0e\0\x09\0\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\x0e\0\x09\0\0\x02\x0c\x8c\x8f\xa9\xcb\xed\x0f\xa3\x9c\xb4\0;",
        b"BM" + (26).to_bytes(4, "little") + bytes(4) + b"\x1a\0\0\0\x0c\0\0\0\x02\0\x02\0\x01\0\x18\0" + bytes(16),
    ]


def _decoded(path: Path) -> object:
    image = read_image(path)
    return image_hw(path) == image.shape[:2]


def _source(path: Path) -> object:
    with open_source(path.parent, reconnect_seconds=0) as frames:
        return [frame.image.shape for frame in frames]


READERS = [
    Reader("image", _decoded, seeds, ".jpg"),
    Reader("image size", image_hw, seeds, ".png"),
    Reader("image folder", _source, seeds, ".jpg"),
]
