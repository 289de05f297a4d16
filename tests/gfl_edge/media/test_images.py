"""Image files: every kind that people have is read as it looks, or refused by what it is."""

from __future__ import annotations

import errno
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from gfl_edge.errors import ImageError, InputError, SourceError
from gfl_edge.media.images import image_hw, read_image, write_image
from tests.support.media_files import jpeg_with_exif

CORNERS = np.array([[0, 90], [170, 250]], np.uint8)


def photo(hw: tuple[int, int] = (48, 64)) -> np.ndarray:
    """Four quarters of different gray, with some noise, so that compressed data are long."""
    noise = np.random.default_rng(0).integers(0, 6, (*hw, 1), np.uint8)
    return np.repeat(cv2.resize(CORNERS, hw[::-1], interpolation=cv2.INTER_NEAREST)[..., None] // 2 + noise, 3, axis=2)


def encoded(suffix: str, image: np.ndarray | None = None, *settings: int) -> bytes:
    ok, content = cv2.imencode(suffix, photo() if image is None else image, settings)
    assert ok
    return bytes(content)


def thumbnail() -> bytes:
    return encoded(".jpg", photo((12, 16)))


def reason(path: Path, content: bytes) -> str:
    """Why both ways of reading refuse a file."""
    path.write_bytes(content)
    with pytest.raises(ImageError) as measured:
        image_hw(path)
    with pytest.raises(ImageError) as error:
        read_image(path)
    assert str(error.value) == str(measured.value) == f"{path} {error.value.reason}"
    return error.value.reason


@pytest.mark.parametrize(
    "given",
    [np.full((4, 6), 200, np.uint8), np.full((4, 6), 200 * 257, np.uint16), np.full((4, 6, 4), 200, np.uint8)],
    ids=["gray", "16-bit gray", "alpha"],
)
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_8_bit_bgr_comes_out(tmp_path: Path, given: np.ndarray, suffix: str) -> None:
    (tmp_path / "image").write_bytes(encoded(suffix, given))
    image = read_image(tmp_path / "image")
    assert (image.dtype, image.shape) == (np.uint8, (4, 6, 3))
    assert np.all(image == 200)


@pytest.mark.parametrize("name", ["Straße 東京.png", "50% #1 [a]'b.png", "-o.png"])
def test_any_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(encoded(".png"))
    assert np.array_equal(read_image(tmp_path / name), photo())


# By the orientation that undoes it (Exif 2.32, 4.6.4), what a camera did to the image
HELD = {
    1: lambda shown: shown,
    2: lambda shown: cv2.flip(shown, 1),
    3: lambda shown: cv2.rotate(shown, cv2.ROTATE_180),
    4: lambda shown: cv2.flip(shown, 0),
    5: cv2.transpose,
    6: lambda shown: cv2.rotate(shown, cv2.ROTATE_90_COUNTERCLOCKWISE),
    7: lambda shown: cv2.rotate(cv2.transpose(shown), cv2.ROTATE_180),
    8: lambda shown: cv2.rotate(shown, cv2.ROTATE_90_CLOCKWISE),
}


@pytest.mark.parametrize("orientation", HELD)
def test_a_photo_is_turned_as_its_exif_says(tmp_path: Path, orientation: int) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(jpeg_with_exif(encoded(".jpg", HELD[orientation](photo())), orientation))
    assert np.abs(read_image(path).astype(int) - photo()).mean() < 6
    assert image_hw(path) == photo().shape[:2]


# JPEGs: what is cut is refused, whatever bytes are in or after it

WHOLE: dict[str, Callable[[], bytes]] = {
    "plain": lambda: encoded(".jpg"),
    "progressive": lambda: encoded(".jpg", None, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "restart markers": lambda: encoded(".jpg", None, cv2.IMWRITE_JPEG_RST_INTERVAL, 2),
    "gray": lambda: encoded(".jpg", photo()[..., 0]),
    "thumbnail": lambda: jpeg_with_exif(encoded(".jpg"), 1, thumbnail()),
    "fill bytes before a marker": lambda: encoded(".jpg")[:-2] + b"\xff\xff\xff\xd9",
}
TAILS = {
    "nothing": b"",
    "zeros": bytes(100),
    "start of scan by chance": b"MotionPhoto_Data" + bytes(9) + b"\xff\xda" + bytes(99),
    "end of image by chance": b"ftypmp42\xff\xd9\xff\xda\xff\xd9\xff\xda",
    "another image": encoded(".jpg"),
    "another image, cut": encoded(".jpg")[:400],
}


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("kind", WHOLE)
def test_what_follows_a_whole_jpeg_is_no_matter(tmp_path: Path, kind: str, tail: str) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(WHOLE[kind]() + TAILS[tail])
    assert np.abs(read_image(path).astype(int) - photo()).mean() < 6
    assert image_hw(path) == (48, 64)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.7, 0.9, 0.99])
@pytest.mark.parametrize("kind", WHOLE)
def test_a_cut_jpeg_is_refused(tmp_path: Path, kind: str, part: float) -> None:
    """OpenCV before 4.12 shows gray where the rest is missing, and calls it an image."""
    whole = WHOLE[kind]()
    assert "is cut, its end is missing" in reason(tmp_path / "a.jpg", whole[: int(part * len(whole))])


def test_a_cut_jpeg_whose_rest_are_zeros_is_refused(tmp_path: Path) -> None:
    """As a download leaves it that reserved its space."""
    whole = encoded(".jpg")
    assert "is a JPEG of 64x48 pixels (8-bit color): it is cut" in reason(
        tmp_path / "a.jpg", whole[: len(whole) // 2].ljust(len(whole), b"\0")
    )


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".webp", ".tif"])
def test_other_cut_files_are_refused(tmp_path: Path, suffix: str) -> None:
    content = encoded(suffix)
    said = reason(tmp_path / f"a{suffix}", content[: len(content) // 2])
    assert "damaged" in said or "does not decode" in said


# Sizes


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp", ".tif"])
def test_the_size_is_that_of_what_is_read(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "a").write_bytes(encoded(suffix, photo((31, 57))))
    assert image_hw(tmp_path / "a") == read_image(tmp_path / "a").shape[:2] == (31, 57)


def png(width: int, height: int, *, bits: int = 1) -> bytes:
    """The head of a PNG with black rows."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    rows = zlib.compress(bytes(1 + width // 8) * 4)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "size"),
    [
        (png(40000, 27000), "a PNG of 40000x27000 pixels (1-bit gray)"),
        (png(1_048_577, 1), "a PNG of 1048577x1 pixels (1-bit gray)"),
        (b"BM" + struct.pack("<IIIIiiHH", 0, 0, 54, 40, 70000, -70000, 1, 24) + bytes(30), "a BMP of 70000x70000"),
        (
            b"II*\0" + struct.pack("<IH", 8, 2) + struct.pack("<HHIIHHIII", 256, 4, 1, 80000, 257, 4, 1, 60000, 0),
            "a TIFF of 80000x60000 pixels",
        ),
        (
            b"RIFF\x64\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\xff\xff\x3f" + b"\xff\xff\x3f" + bytes(70),
            "a WebP image of 4194304x4194304 pixels",
        ),
    ],
    ids=["PNG", "wide PNG", "BMP", "TIFF", "WebP"],
)
def test_an_image_beyond_opencvs_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, size: str
) -> None:
    monkeypatch.setenv("GFL_EDGE_MAX_PIXELS", "99999999999999")
    said = reason(tmp_path / "a.png", content)
    assert said.startswith(f"is {size}")
    assert "too large, OpenCV decodes at most 1073741824 pixels and sides of 1048576. Scale it down" in said


# What is no image, or one of a kind that cannot be used


def tiff(values: np.ndarray, kind: int, *, order: str = "<", big: bool = False) -> bytes:
    """A TIFF or BigTIFF of one strip, whose sample format is ``kind``: 1 unsigned, 2 signed, 3 float."""
    height, width, samples = values.shape
    color = 2 if samples == 3 else 1
    entries = {256: width, 257: height, 258: 8 * values.itemsize, 259: 1, 262: color, 273: 0, 277: samples, 278: height}
    entries |= {279: values.nbytes, 339: kind}
    mark = b"II" if order == "<" else b"MM"
    head = mark + (struct.pack(order + "HHHQ", 43, 8, 0, 16) if big else struct.pack(order + "HI", 42, 8))
    count, entry, end = (order + "Q", order + "HHQQ", bytes(8)) if big else (order + "H", order + "HHII", bytes(4))
    entries[273] = len(head) + struct.calcsize(count) + len(entries) * struct.calcsize(entry) + len(end)
    rows = [struct.pack(entry, tag, 16 if big else 4, 1, value) for tag, value in entries.items()]
    return head + struct.pack(count, len(entries)) + b"".join(rows) + end + values.tobytes()


@pytest.mark.parametrize("big", [False, True], ids=["TIFF", "BigTIFF"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("value", "kind", "words"),
    [
        (np.float32(0.5), 3, "32-bit float"),
        (np.float64(0.5), 3, "64-bit float"),
        (np.int16(5), 2, "16-bit signed"),
        (np.uint32(5), 1, "32-bit"),
    ],
    ids=["float", "double", "signed", "32 bits"],
)
@pytest.mark.parametrize(("samples", "colors"), [(1, "gray"), (3, "RGB")])
def test_a_tiff_whose_values_have_no_known_range(
    tmp_path: Path, value: np.generic, kind: int, words: str, samples: int, colors: str, order: str, big: bool
) -> None:
    """OpenCV before 4.13 shows some of them as noise."""
    values = np.full((48, 64, samples), value)
    said = reason(tmp_path / "a.tif", tiff(values, kind, order=order, big=big))
    assert said.startswith(f"is a TIFF of 64x48 pixels ({words} {colors}): its values have no range")
    assert "Convert it to 8 or 16 bits" in said


def test_a_tiff_of_bytes_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(tiff(photo()[..., ::-1], 1))
    assert np.array_equal(read_image(tmp_path / "a.tif"), photo())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty (0 bytes). Copy it again"),
        (b"this is no JPEG", "is no image that OpenCV can decode: 15 bytes that start with b'this is '"),
        (b"\0\0\0\x18ftypheic" + bytes(90), "a HEIC image"),
        (b"\0\0\0\x18ftypmp42" + bytes(90), "an MP4 or QuickTime video"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"<!DOCTYPE html><html>404</html>", "an HTML page"),
        (b"%PDF-1.7\n", "a PDF"),
        (b"v/1\x01" + bytes(90), "an OpenEXR image"),
        (b"\xff\x0a" + bytes(90), "a JPEG XL image"),
        (b"II*\0\xff\xff\xff\xff", "a TIFF, which OpenCV"),
        (b"RIFF", "is no image that OpenCV can decode"),
        (b"\x89PNG\r\n\x1a\n", "a PNG, which OpenCV"),
        (b"BM", "a BMP, which OpenCV"),
    ],
)
def test_what_is_no_image_is_called_what_it_is(tmp_path: Path, content: bytes, words: str) -> None:
    assert words in reason(tmp_path / "a.jpg", content)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"none\.jpg cannot be read \(No such file or directory\)"):
        read_image(tmp_path / "none.jpg")
    with pytest.raises(ImageError, match=r"cannot be read \(Is a directory\)"):
        image_hw(tmp_path)


@pytest.mark.parametrize(
    ("number", "advice"), [(errno.EMFILE, r"ulimit -n"), (errno.ENFILE, "close some"), (errno.ENOMEM, "more memory")]
)
def test_what_ails_the_machine_is_no_fault_of_an_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, advice: str
) -> None:
    """Who leaves out images that cannot be used must not leave out good ones, one after the other."""

    def refuse(*_: object) -> bytes:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("gfl_edge.media.images.read_regular", refuse)
    with pytest.raises(SourceError, match=rf"a\.jpg cannot be read \({os.strerror(number)}\)\. .*{advice}"):
        read_image(tmp_path / "a.jpg")


def test_memory_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise cv2.error("OpenCV(4.8.0) alloc.cpp:73: error: (-4:Insufficient memory) Failed to allocate")

    monkeypatch.setattr(cv2, "imdecode", refuse)
    monkeypatch.setenv("GFL_EDGE_MAX_PIXELS", "1000000000")
    assert "no memory for its 2.7 GB. Scale it down" in reason(tmp_path / "a.png", png(30000, 30000))


@pytest.mark.parametrize("seed", range(200))
def test_garbage_behind_a_good_beginning_is_an_error_of_its_own_kind(tmp_path: Path, seed: int) -> None:
    random = np.random.default_rng(seed)
    tiffs = b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08", b"II+\0\x08\0\0\0\x10\0\0\0\0\0\0\0"
    start = (b"\xff\xd8\xff", *tiffs, b"BM", b"RIFF")[seed % 6]
    (tmp_path / "a.jpg").write_bytes(start + random.integers(0, 256, random.integers(0, 200), np.uint8).tobytes())
    with pytest.raises(ImageError):
        read_image(tmp_path / "a.jpg")


@pytest.mark.parametrize("name", ["a.txt", "a", "a.mp4"])
def test_a_name_of_no_image(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=rf"{name}: expected the name of an image, ending in \.jpg"):
        write_image(tmp_path / name, np.zeros((4, 4, 3), np.uint8))
    assert not list(tmp_path.iterdir())
