"""Text on images: OpenCV's own letters for ASCII, fonts of this machine, drawn by Pillow, for all else.

OpenCV draws question marks for what is not ASCII. What has no glyph in any font here, or all of it where Pillow is not
installed, is spelled in ASCII, and a line of the log says what to install.
"""

from __future__ import annotations

import functools
import itertools
import logging
import unicodedata

import numpy as np
from numpy.typing import NDArray

from gfl_edge import optional
from gfl_edge.errors import MissingDependencyError
from gfl_edge.media.fonts import covers, font_with, size_for, sized
from gfl_edge.ops.preprocess import Image

CAPITAL_PX = 21  # height of a capital letter of cv2.FONT_HERSHEY_SIMPLEX at scale 1
EAST_ASIAN = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL")

# What Unicode does not decompose into ASCII letters with marks
_LETTERS = "ßẞæÆœŒøØđĐłŁðÐþÞı\u2018\u2019\u201a\u201c\u201d\u201e\u2013\u2014\u2212\xb7\xd7"
_SPELLINGS = 'ss SS ae AE oe OE o O d D l L d D th Th i \' \' , " " " - - - . x'
SPELLING_OF = dict(zip(_LETTERS, _SPELLINGS.split(" "), strict=True))

# Text in parts of one font each, which is its path
Parts = tuple[tuple[str, str], ...]

logger = logging.getLogger(__name__)


def text_size(text: str, capital_px: float) -> tuple[int, int, int]:
    """Width of ``text``, and how far it reaches above and below its baseline, in pixels.

    Args:
        text: one line.
        capital_px: height of a capital letter.
    """
    descent = round(capital_px / 3)  # letters such as g reach down by a third
    parts = _parts_of(text)
    if parts is None:
        cv2 = optional.load("cv2")
        scale, stroke = capital_px / CAPITAL_PX, _stroke(capital_px)
        (width, height), _ = cv2.getTextSize(spelled(text), cv2.FONT_HERSHEY_SIMPLEX, scale, stroke)
        return width, height, descent
    mask, above = _rendered(parts, round(capital_px))
    return mask.shape[1], above, max(descent, len(mask) - above)


def write_text(image: Image, text: str, left: int, baseline: int, capital_px: float, ink: tuple[int, int, int]) -> None:
    """Write ``text`` into ``image`` (uint8 ``[H, W, 3]`` BGR) from a place within it; the rest is cut off."""
    parts = _parts_of(text)
    if parts is None:
        cv2 = optional.load("cv2")
        place, scale, stroke = (left, baseline), capital_px / CAPITAL_PX, _stroke(capital_px)
        cv2.putText(image, spelled(text), place, cv2.FONT_HERSHEY_SIMPLEX, scale, ink, stroke, cv2.LINE_AA)
        return
    mask, above = _rendered(parts, round(capital_px))
    mask = mask[max(0, above - baseline) :]
    part = image[max(0, baseline - above) :, left:][: len(mask), : mask.shape[1]]
    share = mask[: part.shape[0], : part.shape[1], None] / np.float32(255)
    part[...] = np.rint(part + (np.array(ink, np.float32) - part) * share)


def spelled(text: str) -> str:
    r"""``text`` in printable ASCII: "café" as "cafe", what has no such letters by its number, such as "\u4eba"."""
    return text if text.isascii() and text.isprintable() else "".join(map(_spelled, text))


def _spelled(character: str) -> str:
    if character.isascii():
        return character if character.isprintable() else ascii(character)[1:-1]
    if unicodedata.category(character) in ("Cf", "Mn"):  # joiners, marks on the letter before
        return ""
    plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return SPELLING_OF.get(character) or plain or ascii(character)[1:-1]


def _stroke(capital_px: float) -> int:
    return max(1, round(capital_px / 12))


@functools.lru_cache(maxsize=1024)
def _parts_of(text: str) -> Parts | None:
    """``text`` in parts of one font each; None where it is left to OpenCV's letters, as ASCII is.

    A last word in ASCII, as the score of a label is, is a part of its own, so that names are rendered only once.
    """
    text = unicodedata.normalize("NFC", text)
    if text.isascii() or not _pillow_is_there():
        return None
    name, space, score = text.rpartition(" ")
    if not name or not score.isascii():
        return _parts(text, None)
    parts = _parts(name, None)
    return parts and (*parts, *(_parts(space + score, parts[-1][0]) or ()))


def _parts(text: str, font: str | None) -> Parts | None:
    """As above, in ``font`` as far as that has the letters; None where no font has any."""
    found: list[tuple[str, str]] = []
    for character in text:
        shown = character if character.isprintable() else spelled(character)
        if font is None or not covers(font, shown):
            font = font_with(shown)
        if font is None:
            shown, font = spelled(character), font_with("x")
            if shown:  # marks and joiners are left out without a word
                symbol = unicodedata.category(character).startswith("S")
                _say_once("SYMBOLS" if symbol else unicodedata.name(character, "OTHERS").split()[0])
        if font is None:
            return None
        found.append((font, shown))
    joined = itertools.groupby(found, key=lambda part: part[0])
    return tuple((font, "".join(shown for _, shown in group)) for font, group in joined)


@functools.cache
def _pillow_is_there() -> bool:
    try:
        optional.load("PIL.ImageFont")
    except MissingDependencyError as error:
        logger.warning("class names are spelled in ASCII on images: %s", error)
        return False
    return True


@functools.cache
def _say_once(script: str) -> None:
    package = "fonts-noto-cjk" if script in EAST_ASIAN else "fonts-noto-core"
    logger.warning(
        "class names are spelled in ASCII on images where no font has their letters (%s). Install one, on Debian and "
        "Ubuntu with: sudo apt install %s",
        script.lower(),
        package,
    )


@functools.lru_cache(maxsize=512)
def _rendered(parts: Parts, capital_px: int) -> tuple[NDArray[np.uint8], int]:
    """How much ink each pixel gets, uint8 ``[h, w]``, and how many rows lie above the baseline."""
    masks = [_rendered_part(path, text, capital_px) for path, text in parts]
    above = max(own for _, own in masks)
    height = above + max(len(mask) - own for mask, own in masks)
    padded = [np.pad(mask, ((above - own, height - above + own - len(mask)), (0, 0))) for mask, own in masks]
    return np.concatenate(padded, axis=1), above


@functools.lru_cache(maxsize=1024)
def _rendered_part(path: str, text: str, capital_px: int) -> tuple[NDArray[np.uint8], int]:
    font = sized(path, size_for(path, capital_px))
    _, top, right, bottom = font.getbbox(text, anchor="ls")
    above = max(capital_px, -top)
    width = max(1, right, round(font.getlength(text)))
    image = optional.load("PIL.Image").new("L", (width, above + max(0, bottom)))
    optional.load("PIL.ImageDraw").Draw(image).text((0, above), text, fill=255, font=font, anchor="ls")
    return np.array(image), above
