"""Small files that stand for huge images, and files that never end, are refused before anything is decoded."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from gfl_edge.errors import ImageError, InputError, SourceError
from gfl_edge.media.images import image_files, image_hw, read_image
from gfl_edge.media.limits import MAX_PIXELS


def big_tiff_of_tiles(tile: int) -> bytes:
    entries = ((256, 10), (257, 10), (322, tile), (323, tile))
    return (
        b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(struct.pack("<HHII", t, 4, 1, v) for t, v in entries)
    )


def jpeg(*frames_wh: tuple[int, int], scans: int = 1) -> bytes:
    frames = b"".join(
        b"\xff\xc2" + struct.pack(">HBHHB", 17, 8, height, width, 3) + bytes(9) for width, height in frames_wh
    )
    return b"\xff\xd8" + frames + scans * (b"\xff\xda" + struct.pack(">H", 8) + bytes(6)) + b"\xff\xd9"


BOMBS = {
    "PNG": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">IIBBBBB", 44000, 44000, 1, 0, 0, 0, 0),
    "JPEG": jpeg((65500, 65500)),
    "JPEG of two frames": jpeg((10, 65500), (65500, 10)),
    "GIF": b"GIF89a" + struct.pack("<HH", 60000, 60000),
    "BMP": b"BM" + struct.pack("<IIIIiiHH", 0, 0, 54, 40, 30000, -30000, 1, 24) + bytes(30),
    "BMP of OS/2": b"BM" + struct.pack("<IIIIHHHH", 0, 0, 26, 12, 40000, 40000, 1, 24),
    "TIFF": b"II*\0" + struct.pack("<IH", 8, 2) + struct.pack("<HHIIHHIII", 256, 4, 1, 30000, 257, 4, 1, 30000, 0),
    "WebP": b"RIFF\x64\0\0\0WEBPVP8L\x0a\0\0\0\x2f" + struct.pack("<I", 16382 | 16382 << 14) + bytes(70),
    "WebP, lossy": b"RIFF\x64\0\0\0WEBPVP8 \x0a\0\0\0" + bytes(6) + struct.pack("<HH", 16383, 16383) + bytes(70),
}


@pytest.fixture
def nothing_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(cv2, "imdecode")


@pytest.mark.usefixtures("nothing_is_decoded")
@pytest.mark.parametrize("kind", BOMBS)
@pytest.mark.parametrize("read", [read_image, image_hw])
def test_too_many_pixels(tmp_path: Path, kind: str, read: object) -> None:
    (tmp_path / "a.jpg").write_bytes(BOMBS[kind])
    with pytest.raises(
        ImageError, match=rf"too large, at most {MAX_PIXELS} pixels are decoded.*GFL_EDGE_MAX_PIXELS to"
    ):
        read(tmp_path / "a.jpg")  # type: ignore[operator]


@pytest.mark.usefixtures("nothing_is_decoded")
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (jpeg((100, 100), scans=5000), "it has 5000 scans, which only serve to take time"),
        (big_tiff_of_tiles(30000), "its tiles of 30000x30000 pixels are larger than it"),
        (b"P6 60000 60000 255\n", "is no image that OpenCV can decode"),
        (b"#?RADIANCE\n\n-Y 60000 +X 60000\n", "is no image that OpenCV can decode"),
        (b"\0\0\0\x1cftypavif" + bytes(90), "is an AVIF image, which OpenCV"),
    ],
)
def test_what_may_grow_in_other_ways(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(ImageError, match=said):
        read_image(tmp_path / "a.jpg")


def test_the_limit_can_be_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((30, 40, 3), np.uint8))
    monkeypatch.setenv("GFL_EDGE_MAX_PIXELS", "1200")
    assert read_image(tmp_path / "a.png").shape == (30, 40, 3)
    monkeypatch.setenv("GFL_EDGE_MAX_PIXELS", "1199")
    with pytest.raises(ImageError, match="at most 1199 pixels are decoded"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("named", ["0", "-5", "1e9", "many", "1.5", "\N{SUPERSCRIPT TWO}"])
def test_a_limit_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((30, 40, 3), np.uint8))
    monkeypatch.setenv("GFL_EDGE_MAX_PIXELS", named)
    with pytest.raises(InputError, match=r"GFL_EDGE_MAX_PIXELS is .*: expected a whole number of pixels"):
        read_image(tmp_path / "a.png")


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    (tmp_path / "circle.jpg").symlink_to("circle.jpg")
    (tmp_path / "folder.jpg").mkdir()
    with (tmp_path / "long.jpg").open("wb") as file:
        file.truncate(2**40)  # a hole
    for path, said in (
        (tmp_path / "pipe.jpg", "it is a device or a pipe, expected a file"),
        (tmp_path / "zero.jpg", "it is a device or a pipe, expected a file"),
        (tmp_path / "circle.jpg", "Too many levels of symbolic links"),
        (tmp_path / "folder.jpg", "Is a directory"),
        (tmp_path / "long.jpg", "it is larger than the 1073741824 bytes that such a file may have"),
        (tmp_path / ("a" * 300), "File name too long"),
        (tmp_path / "a\0.jpg", "null byte|null character"),
    ):
        with pytest.raises(ImageError, match=said):
            read_image(path)


def test_a_folder_of_many_names_is_listed_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{number}.jpg" for number in range(100_000)]
    monkeypatch.setattr(os, "listdir", lambda folder: [*names, ".hidden.jpg", "notes.txt"])
    assert len(image_files(tmp_path)) == len(names)


def test_a_folder_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(folder: Path) -> None:
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(SourceError, match=r"cannot be listed \(Permission denied\)"):
        image_files(tmp_path)
