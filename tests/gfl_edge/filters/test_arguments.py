"""A filter from the words of a command line."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from gfl_edge.errors import InputError
from gfl_edge.filters import DetectionFilter, Region
from gfl_edge.filters.arguments import Scores, add_filter, parse_region_by, parse_scores, parse_size, read_filter


def read(*words: str) -> DetectionFilter:
    parser = argparse.ArgumentParser()
    add_filter(parser)
    return read_filter(parser.parse_args(list(words)))


def test_all_of_it(tmp_path: Path) -> None:
    assert read() == DetectionFilter()
    assert read("--score", "0.3") == DetectionFilter(0.3)
    words = "--classes person,car --score 0.3,person=0.5 --score car=0.6 --region-by overlap=0.25 --min-size 12x30"
    words += " --max-edge-sigma 3"
    regions = ["--region", "0,0 9,0 9,9", "--region", "1:0,0 0.5,0 0.5,1", "--exclude", "0,0 9,0 9,9"]
    triangle = Region(((0, 0), (9, 0), (9, 9)))
    expected = DetectionFilter(
        score=0.3,
        class_scores={"person": 0.5, "car": 0.6},
        classes=("person", "car"),
        regions=(triangle, Region(((0, 0), (0.5, 0), (0.5, 1)), 1)),
        excluded=(triangle,),
        region_by=0.25,
        min_size=(12, 30),
        max_edge_sigma=3,
    )
    assert read(*words.split(), *regions) == expected
    (tmp_path / "names.txt").write_text("traffic light\nboth, of them\n")
    assert read("--classes", str(tmp_path / "names.txt")).classes == ("traffic light", "both, of them")


def test_classes_that_are_given_one_by_one() -> None:
    assert read("--classes", "person", "--classes", "car,person").classes == ("person", "car")


def test_a_class_with_the_name_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "person").mkdir()
    monkeypatch.chdir(tmp_path)
    assert read("--classes", "person").classes == ("person",)


@pytest.mark.parametrize(
    ("text", "general", "by_class"),
    [
        ("0.3", 0.3, {}),
        ("1", 1, {}),
        ("person=0.5", None, {"person": 0.5}),
        ("person=0.5,0.3", 0.3, {"person": 0.5}),
        ("0.3, traffic light = .5", 0.3, {"traffic light": 0.5}),
        ("a,b=0.5,c=0.1", None, {"a,b": 0.5, "c": 0.1}),
        ("a=b=0.5", None, {"a=b": 0.5}),
        ("0.5=0.2", None, {"0.5": 0.2}),
        ("Straße=0,x=1e-1", None, {"Straße": 0, "x": 0.1}),
    ],
)
def test_scores(text: str, general: float | None, by_class: dict[str, float]) -> None:
    assert parse_scores(text) == Scores(general, by_class)


@pytest.mark.parametrize(
    "text", ["", "high", "1.5", "nan", "-0.1", "person", "person=", "person=2", "=0.5", "0.3,", ",", "person=0.5,car"]
)
def test_scores_that_are_none(text: str) -> None:
    with pytest.raises(InputError, match=r"expected 0\.\.1, CLASS=SCORE, or several"):
        parse_scores(text)


@pytest.mark.parametrize("words", [["0.3,0.4"], ["0.3", "0.4"], ["a=0.3,a=0.4"], ["a=0.3", "0.1,a=0.4"]])
def test_two_scores_for_the_same(words: list[str]) -> None:
    with pytest.raises((InputError, SystemExit)):
        read(*[part for word in words for part in ("--score", word)])


def test_parts_and_sizes() -> None:
    parts = ("center", "bottom", "overlap", "overlap=0.25", "overlap=1")
    assert [parse_region_by(text) for text in parts] == ["center", "bottom", 0.5, 0.25, 1]
    for text in ("", "middle", "overlap=", "overlap=0", "overlap=2", "overlap=nan", "0.5"):
        with pytest.raises(InputError, match="expected center, bottom or overlap=S"):
            parse_region_by(text)
    assert [parse_size(text) for text in ("20", "12x30", "0.5X1")] == [(20, 20), (12, 30), (0.5, 1)]
    for text in ("", "x", "12x", "1x2x3", "-1", "nan", "inf", "wide"):
        with pytest.raises(InputError, match="expected a width and height"):
            parse_size(text)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--region", "0,0 9,9"], "argument --region: a region of 2 different corners"),
        (["--exclude", "0,0 9,9 9,0 0,9"], "argument --exclude: the border of a region touches itself"),
        (["--score", "high"], "argument --score: score 'high': expected"),
        (["--classes", ""], "argument --classes: class names"),
    ],
)
def test_wrong_usage(capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    with pytest.raises(SystemExit) as caught:
        read(*words)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
