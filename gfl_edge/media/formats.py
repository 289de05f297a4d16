"""What an image file is, by its own header: format, size, kind of pixels, and whether a JPEG is whole.

Nothing is decoded here. It is what an error can say of a file that OpenCV refuses without a reason, and what has to be
known of the files that OpenCV decodes to something else than the image.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_JPEG, _PNG = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"
# In a JPEG's compressed data, FF stands before 00 (a byte of data) or D0..D7 (a restart); anything else ends them
_END_OF_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # of the markers C0..CF, those that start a frame
_EXIF = 0xE1, b"Exif\0\0"

# Formats that come under the wrong suffix, or for which OpenCV has no decoder, by how they start
_MAGIC = (
    (re.compile(rb"....ftyp(heic|heix|heim|heis|hevc|mif1|msf1)", re.DOTALL), "a HEIC image, as phones take them"),
    (re.compile(rb"....ftypavi[fs]", re.DOTALL), "an AVIF image"),
    (re.compile(rb"....ftyp", re.DOTALL), "an MP4 or QuickTime video"),
    (re.compile(rb"\xff\x0a|\0\0\0\x0cJXL "), "a JPEG XL image"),
    (re.compile(rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51"), "a JPEG 2000 image"),
    (re.compile(rb"v/1\x01"), "an OpenEXR image, whose values have no fixed range"),
    (re.compile(rb"8BPS"), "a Photoshop file"),
    (re.compile(rb"%PDF"), "a PDF"),
    (re.compile(rb"PK\x03\x04"), "a ZIP archive"),
    (re.compile(rb"version https://git-lfs"), "a Git LFS pointer instead of the image (git lfs pull brings that)"),
    (re.compile(rb"\s*<(!doctype html|html)", re.IGNORECASE), "an HTML page, as failed downloads leave them"),
    (re.compile(rb"\s*<(\?xml|svg)", re.IGNORECASE), "an XML or SVG text"),
)
_TIFF_SIZES = {1: 1, 3: 2, 4: 4, 16: 8}  # bytes of a TIFF value by the number of its type
_TIFF_COLORS = {
    0: "gray",
    1: "gray",
    2: "RGB",
    3: "palette",
    5: "CMYK",
    6: "YCbCr",
    8: "CIELAB",
    32844: "LogL",
    32845: "LogLuv",
}
_TIFF_VALUES = {2: "signed ", 3: "float ", 5: "complex ", 6: "complex "}
_PNG_COLORS = {0: "gray", 2: "RGB", 3: "palette", 4: "gray with alpha", 6: "RGBA"}
_JPEG_COLORS = {1: "gray", 3: "color", 4: "CMYK"}
MAX_SCANS = 200  # of a JPEG; programs write 10 or so, and each goes over the whole image
MAX_TILE_PIXELS = 2**24  # of a TIFF that is itself smaller: OpenCV makes room for a whole tile


@dataclass(frozen=True)
class Header:
    """What the header of an image file says.

    Attributes:
        format: with its article, such as "a PNG".
        size_wh: width and height in pixels, before EXIF turns them; None where the header does not say.
        pixels: such as "16-bit gray"; "" where the header does not say.
        refused: why the file must not be decoded, although OpenCV might; "" if it may.
        plain: whether the image is decoded to just ``size_wh``: no EXIF data that may turn it.
    """

    format: str
    size_wh: tuple[int, int] | None = None
    pixels: str = ""
    refused: str = ""
    plain: bool = False

    def __str__(self) -> str:
        size = "" if self.size_wh is None else f" of {self.size_wh[0]}x{self.size_wh[1]} pixels"
        return self.format + size + (f" ({self.pixels})" if self.pixels else "")


def read_header(content: bytes) -> Header | None:
    """The header of a whole file; None if it is of no format that is known here."""
    for starts, read in (
        ((_JPEG,), _jpeg),
        ((_PNG,), _png),
        ((b"BM",), _bmp),
        ((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), _tiff),
        ((b"GIF8",), _gif),
    ):
        if content.startswith(starts):
            return read(content)
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return _webp(content)
    return next((Header(name) for magic, name in _MAGIC if magic.match(content)), None)


def _jpeg(content: bytes) -> Header:
    size_wh, pixels, plain, scans = None, "", True, 0
    for marker, body in _jpeg_segments(content):
        if marker in _FRAMES and len(body) >= 6:
            width, height = size_wh or (
                0,
                0,
            )  # of several frames, which are damage, what any decoder might make room for
            size_wh = max(width, int.from_bytes(body[3:5], "big")), max(height, int.from_bytes(body[1:3], "big"))
            pixels = f"{body[0]}-bit {_JPEG_COLORS.get(body[5], f'of {body[5]} components')}"
            plain = plain and all(size_wh)  # a height of 0 follows after the data
        elif marker == _EXIF[0] and body.startswith(_EXIF[1]):
            plain = False
        scans += marker == _START_OF_SCAN
        if marker == _END_OF_IMAGE and scans:
            many = f"it has {scans} scans, which only serve to take time, expected at most {MAX_SCANS}. Leave it out"
            return Header("a JPEG", size_wh, pixels, many if scans > MAX_SCANS else "", plain)
    return Header("a JPEG", size_wh, pixels, "it is cut, its end is missing. Copy it again")


def _jpeg_segments(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Markers of a JPEG with what they hold, up to its end or where it is cut.

    Thumbnails, which are JPEGs in a segment, and what follows the end, such as the video of a motion photo or further
    images, are passed over: bytes in there mean nothing.
    """
    at = len(_JPEG)
    while (found := _END_OF_SCAN.search(content, at)) is not None:
        marker, at = content[found.end() - 1], found.end()
        if marker == _END_OF_IMAGE:
            yield marker, b""
            return
        if marker == 0x01 or marker == 0xD8:  # stands by itself
            continue
        length = int.from_bytes(content[at : at + 2], "big")
        if at + length > len(content):
            return
        yield marker, content[at + 2 : at + length]
        at += length


def _png(content: bytes) -> Header:
    if content[12:16] != b"IHDR" or len(content) < 26:
        return Header("a PNG")
    size_wh = int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")
    return Header("a PNG", size_wh, f"{content[24]}-bit {_PNG_COLORS.get(content[25], 'of unknown colors')}")


def _gif(content: bytes) -> Header:
    if len(content) < 10:
        return Header("a GIF")
    return Header("a GIF", (int.from_bytes(content[6:8], "little"), int.from_bytes(content[8:10], "little")))


def _bmp(content: bytes) -> Header:
    head = int.from_bytes(content[14:18], "little")
    if head == 12 and len(content) >= 26:  # of OS/2
        size_wh = int.from_bytes(content[18:20], "little"), int.from_bytes(content[20:22], "little")
        return Header("a BMP", size_wh, f"{int.from_bytes(content[24:26], 'little')} bits a pixel")
    if len(content) < 30 or head < 40:
        return Header("a BMP")
    width, height = (int.from_bytes(content[at : at + 4], "little", signed=True) for at in (18, 22))
    return Header("a BMP", (width, abs(height)), f"{int.from_bytes(content[28:30], 'little')} bits a pixel")


def _webp(content: bytes) -> Header:
    kind, body = content[12:16], content[20:30]
    if kind == b"VP8X":
        size_wh = 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
        return Header("a WebP image", size_wh, "animated" if body[:1] and body[0] & 2 else "")
    if kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return Header("a WebP image", (1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)), "lossless")
    if kind == b"VP8 ":
        size_wh = int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF
        return Header("a WebP image", size_wh)
    return Header("a WebP image")


def _tiff(content: bytes) -> Header:
    tags = _tiff_tags(content)
    if 256 not in tags or 257 not in tags:
        return Header("a TIFF")
    bits, kind = tags.get(258, 1), _TIFF_VALUES.get(tags.get(339, 1), "")
    pixels = f"{bits}-bit {kind}{_TIFF_COLORS.get(tags.get(262, 1), 'of unknown colors')}"
    refused = ""
    if kind or bits > 16:
        refused = "its values have no range that is known here. Convert it to 8 or 16 bits without a sign"
    if tags.get(322, 0) * tags.get(323, 0) > max(MAX_TILE_PIXELS, tags[256] * tags[257]):
        refused = f"its tiles of {tags[322]}x{tags[323]} pixels are larger than it. Save it without tiles"
    return Header("a TIFF", (tags[256], tags[257]), pixels, refused)


def _tiff_tags(content: bytes) -> dict[int, int]:
    """The first value of each entry with whole numbers in the first directory of a TIFF or BigTIFF."""
    order = "little" if content[:2] == b"II" else "big"
    big = 43 in content[2:4]
    word = 8 if big else 4  # bytes of a count, and of a value or where it lies

    def number(at: int, size: int) -> int:
        return int.from_bytes(content[at : at + size], order)  # type: ignore[arg-type]

    start, head, entry = number(word, word), 8 if big else 2, 4 + 2 * word
    first = start + head
    tags: dict[int, int] = {}
    for at in range(first, min(first + entry * number(start, head), len(content) - entry + 1), entry):
        size = _TIFF_SIZES.get(number(at + 2, 2))
        if size is not None:
            field = at + 4 + word
            where = field if size * number(at + 4, word) <= word else number(field, word)
            tags[number(at, 2)] = number(where, size)
    return tags
