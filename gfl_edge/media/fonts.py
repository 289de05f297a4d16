"""Fonts of this machine, for Pillow: where they are, which letters they have, how large they draw them."""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gfl_edge import optional

FONT_SUFFIXES = (".ttf", ".ttc", ".otf", ".otc")
# By how file names start: fonts without serifs that cover much, as Linux, Windows and macOS have them
PREFERRED = ("notosans-", "notosanscjk", "dejavusans.", "wqy", "segoeui", "msyh", "meiryo", "malgun", "arial")
STYLES = ("bold", "italic", "oblique", "light", "thin", "black", "condensed", "mono", "serif", "math", "emoji")
NO_FONTS = ("lastresort", "adobeblank")  # they have a glyph for everything and letters for nothing
TRIAL_PX = 48  # glyphs are looked at in this size
NO_CHARACTER = "\U0010ffff"  # no font has it: what it draws instead


@functools.lru_cache(maxsize=4096)
def font_with(text: str) -> str | None:
    """The path of the first font that covers ``text``."""
    return next((font for font in fonts() if covers(font, text)), None)


@functools.cache
def fonts() -> tuple[str, ...]:
    """The fonts of this machine, those first that are easy to read."""

    def rank(path: Path) -> tuple[int, int, str]:
        name = path.name.lower()
        preferred = next((i for i, start in enumerate(PREFERRED) if name.startswith(start)), len(PREFERRED))
        return sum(style in name for style in STYLES), preferred, str(path)

    files = {path for folder in font_folders() for path in folder.rglob("*") if path.suffix.lower() in FONT_SUFFIXES}
    usable = [path for path in files if not path.name.lower().startswith(NO_FONTS)]
    return tuple(str(path) for path in sorted(usable, key=rank))


def font_folders() -> Iterable[Path]:
    """Where Linux, macOS, Windows and Matplotlib have fonts, as far as they are there."""
    home, windows = Path.home(), Path(os.environ.get("WINDIR", "C:/Windows"))
    local = Path(os.environ.get("LOCALAPPDATA", home / "AppData/Local"))
    folders = [Path("/usr/share/fonts"), Path("/usr/local/share/fonts"), home / ".fonts", home / ".local/share/fonts"]
    folders += [Path("/System/Library/Fonts"), Path("/Library/Fonts"), home / "Library/Fonts"]
    folders += [windows / "Fonts", local / "Microsoft/Windows/Fonts"]
    matplotlib = importlib.util.find_spec("matplotlib")
    if matplotlib is not None and matplotlib.origin:
        folders.append(Path(matplotlib.origin).parent / "mpl-data/fonts/ttf")
    return filter(Path.is_dir, folders)


@functools.lru_cache(maxsize=256)
def sized(path: str, size_px: int, layout: int | None = None) -> Any:
    """A font of Pillow; None where it cannot be used. Layout 0 draws each character by itself."""
    try:
        return optional.load("PIL.ImageFont").truetype(path, size_px, layout_engine=layout)
    except (OSError, ImportError):  # bitmaps of other sizes; Pillow without FreeType
        return None


@functools.lru_cache(maxsize=4096)
def covers(path: str, text: str) -> bool:
    """Whether a font can be used, and has a glyph for ``text``, if that is a character beyond ASCII."""
    font = sized(path, TRIAL_PX, 0)
    if font is None or not text.strip() or len(text) > 1:  # several are ASCII, as spelled
        return font is not None
    glyph, none = font.getmask(text), font.getmask(NO_CHARACTER)
    return bool(glyph.size != none.size or bytes(glyph) != bytes(none))


@functools.lru_cache(maxsize=256)
def size_for(path: str, capital_px: int) -> int:
    """The size in which a font's capital letters are so high; what is usual of a font without them."""
    share = -sized(path, TRIAL_PX).getbbox("H", anchor="ls")[1] / TRIAL_PX if covers(path, "H") else 0.72
    return max(1, round(capital_px / share))
