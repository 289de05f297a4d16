"""Labels in every script: drawn by a font that has it, or spelled in ASCII, and never as question marks."""

from __future__ import annotations

import functools
import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gfl_edge.detections import Detections
from gfl_edge.media import fonts
from gfl_edge.media import text as text_module
from gfl_edge.media.draw import draw_detections, draw_status
from gfl_edge.media.text import spelled, text_size, write_text

BLOCK, WHITE = "人", (255, 255, 255)


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """Nothing is known of fonts from another test, nor for the next."""

    def forget() -> None:
        for value in (*vars(text_module).values(), *vars(fonts).values()):
            if hasattr(value, "cache_clear"):
                value.cache_clear()

    forget()
    yield
    forget()


@pytest.fixture
def no_fonts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "font_folders", lambda: ())


@pytest.fixture
def no_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PIL", "PIL.Image", "PIL.ImageDraw", "PIL.ImageFont"):
        monkeypatch.setitem(sys.modules, name, None)


@pytest.fixture
def block_font(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only font: 人 is a block on the baseline as high as capitals, which are blocks of half the width."""
    builder = pytest.importorskip("fontTools.fontBuilder").FontBuilder(1000)
    pens = pytest.importorskip("fontTools.pens.ttGlyphPen")

    def block(width: int, height: int) -> object:
        pen = pens.TTGlyphPen(None)
        corners = [(0, 0), (0, height), (width, height), (width, 0)]
        pen.moveTo(corners[0])
        for corner in corners[1:]:
            pen.lineTo(corner)
        pen.closePath()
        return pen.glyph()

    widths = {".notdef": 300, "half": 400, "full": 800}
    builder.setupGlyphOrder(list(widths))
    builder.setupCharacterMap({ord(BLOCK): "full", **dict.fromkeys(range(32, 127), "half")})
    builder.setupGlyf({name: block(width, 700 if name != ".notdef" else 100) for name, width in widths.items()})
    builder.setupHorizontalMetrics({name: (width, 0) for name, width in widths.items()})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Block", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(tmp_path / "block.ttf")
    monkeypatch.setattr(fonts, "font_folders", lambda: (tmp_path,))
    return tmp_path / "block.ttf"


def written(text: str) -> np.ndarray:
    image = np.zeros((80, 600, 3), np.uint8)
    write_text(image, text, 10, 50, 21, WHITE)
    return image


def found(name: str) -> Detections:
    return Detections(np.float32([[40, 60, 200, 200]]), np.float32([0.5]), np.int32([0]), (name,))


@functools.cache
def frame() -> np.ndarray:
    return np.zeros((240, 320, 3), np.uint8)


def test_letters_are_taken_from_a_font_that_has_them(block_font: Path) -> None:
    image = written(BLOCK)
    rows, columns = np.nonzero(image[..., 0] > 127)
    assert (rows.min(), rows.max()) == (50 - 21, 49), "as high as a capital letter, on the baseline"
    assert (columns.min(), columns.max()) == (10, 10 + 24 - 1)
    assert text_size(BLOCK, 21) == (24, 21, 7)
    assert text_size(f"{BLOCK}{BLOCK}", 21)[0] == 48


@pytest.mark.parametrize("name", ["грузовик", "σκύλος", "café", "Straße", "Łódź"])
def test_matplotlibs_font_has_many_letters(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(fonts.Path, "is_dir", lambda path: "mpl-data" in str(path))
    assert not np.array_equal(written(name), written(spelled(name)))
    assert not np.array_equal(written(name), written("?" * len(name)))


def test_a_name_of_several_scripts_takes_several_fonts(block_font: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    more = Path(matplotlib.get_data_path()) / "fonts/ttf"
    monkeypatch.setattr(fonts, "font_folders", lambda: (block_font.parent, more))
    parts = text_module._parts_of(f"Ёж {BLOCK} é 0.87")
    assert parts is not None
    assert [text for _, text in parts] == ["Ёж ", f"{BLOCK} ", "é", " 0.87"]
    assert [Path(font).name for font, _ in parts] == ["DejaVuSans.ttf", "block.ttf", "DejaVuSans.ttf", "DejaVuSans.ttf"]
    assert written(f"Ёж {BLOCK} é 0.87").any()


def test_names_are_rendered_once_however_many_scores_they_have(block_font: Path) -> None:
    for hundredth in range(100):
        written(f"{BLOCK} {hundredth / 100:.2f}")
    assert text_module._rendered_part.cache_info().misses == 101


@pytest.mark.usefixtures("no_fonts")
def test_without_a_font_names_are_spelled_and_the_log_says_what_to_install(caplog: pytest.LogCaptureFixture) -> None:
    assert not np.array_equal(draw_detections(frame(), found("人物")), draw_detections(frame(), found("??")))
    assert np.array_equal(written("人物 0.50"), written(r"\u4eba\u7269 0.50"))
    for name in ("人物", "人体", "漢字"):
        draw_detections(frame(), found(name))
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().endswith(
        "(cjk). Install one, on Debian and Ubuntu with: sudo apt install fonts-noto-cjk"
    )
    draw_detections(frame(), found("कुत्ता"))
    assert "(devanagari). Install one" in caplog.records[1].getMessage()
    assert len(caplog.records) == 2


@pytest.mark.usefixtures("no_pillow")
def test_without_pillow_names_are_spelled_and_the_log_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    assert np.array_equal(written("café"), written("cafe"))
    assert np.array_equal(written("人"), written(r"\u4eba"))
    assert np.array_equal(draw_status(frame(), "Łódź"), draw_status(frame(), "Lodz"))
    (record,) = caplog.records
    assert "pip install 'gfl-edge[text]'" in record.getMessage()


def test_a_font_for_some_letters(block_font: Path) -> None:
    parts = text_module._parts_of(f"{BLOCK}物é 0.50")
    assert parts is not None
    assert "".join(text for _, text in parts) == BLOCK + r"\u7269e 0.50"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("person", "person"),
        ("café", "cafe"),
        ("cafe\N{COMBINING ACUTE ACCENT}", "cafe"),
        ("Straße", "Strasse"),
        ("Łódź", "Lodz"),
        ("smørrebrød", "smorrebrod"),
        ("\N{RIGHT SINGLE QUOTATION MARK}n\N{NO-BREAK SPACE}x", "'n x"),
        ("\N{LATIN SMALL LIGATURE FI}t \N{FULLWIDTH DIGIT ONE}", "fit 1"),
        ("人物", r"\u4eba\u7269"),
        ("\N{DOG FACE}\N{VARIATION SELECTOR-16}", r"\U0001f436"),
        ("a\nb\t", r"a\nb\t"),
        ("a\0", r"a\x00"),
    ],
)
def test_spelling(name: str, expected: str) -> None:
    assert spelled(name) == expected
    assert spelled(expected) == expected


@pytest.mark.parametrize(
    "name",
    [
        "人\n物",
        "é\t",
        "\u202eabc\u202c é",
        "é\0",
        "\ud800é",
        "é\U0010ffff",
        "é" * 300,
        "\N{COMBINING ACUTE ACCENT}",
        "\u200d",
        "",
    ],
)
def test_odd_names_are_drawn_somehow(name: str) -> None:
    assert draw_detections(frame(), found(name)).shape == (240, 320, 3)


@pytest.mark.parametrize("place", [(0, 3), (595, 79), (10, 79), (599, 5)])
def test_what_does_not_fit_is_cut_off(block_font: Path, place: tuple[int, int]) -> None:
    image = np.zeros((80, 600, 3), np.uint8)
    write_text(image, f"{BLOCK} {BLOCK}", *place, 21, WHITE)
    assert image.any()


@pytest.mark.parametrize(
    "name",
    ["\x1b[31m\x00\n", "\u202eabc", "\udcff", "$\\frac$ %s", "", " ", "\u0301" * 40, "x" * 10**6, "\u4eba" * 10**6],
    ids=range(9),
)
def test_labels_of_any_name(name):
    """Control characters, marks of direction, bytes that are no text, and names as long as a book."""
    frame = np.zeros((240, 320, 3), np.uint8)
    found = Detections(np.float32([[40, 60, 200, 200]]), np.float32([0.5]), np.int32([0]), (name,))
    started = time.perf_counter()
    assert draw_detections(frame, found).any()
    assert time.perf_counter() - started < 5
