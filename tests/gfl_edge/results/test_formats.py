"""Formats and the names of their files."""

from __future__ import annotations

from pathlib import Path

import pytest

from gfl_edge.errors import InputError, OutputError
from gfl_edge.results.formats import check_results, join_formats, parse_formats, result_files


def test_words() -> None:
    assert parse_formats("coco") == {"coco": "coco.json"}
    words = "coco,yolo, csv=cars.csv,jsonl=/tmp/x.jsonl"
    assert parse_formats(words) == {"coco": "coco.json", "yolo": "yolo", "csv": "cars.csv", "jsonl": "/tmp/x.jsonl"}
    assert result_files(parse_formats("csv=a.csv,jsonl=/x.jsonl"), Path("out")) == {
        "csv": Path("out/a.csv"),
        "jsonl": Path("/x.jsonl"),
    }
    assert result_files(("coco", "yolo"), Path("out")) == {"coco": Path("out/coco.json"), "yolo": Path("out/yolo")}


def test_formats_that_are_given_one_by_one() -> None:
    words = map(parse_formats, ("coco", "csv=a.csv,jsonl"))
    assert join_formats(words) == {"coco": "coco.json", "csv": "a.csv", "jsonl": "detections.jsonl"}
    assert join_formats([]) == {}
    with pytest.raises(InputError, match="the format csv is given twice"):
        join_formats(map(parse_formats, ("csv", "csv=a.csv")))


@pytest.mark.parametrize("text", ["", "voc", "coco,", "coco,coco", "csv=", "CSV", "coco csv"])
def test_words_that_are_none(text: str) -> None:
    with pytest.raises(InputError, match="expected coco, yolo, csv, jsonl, each once"):
        parse_formats(text)


def test_unknown_formats() -> None:
    with pytest.raises(InputError, match="format 'voc': expected some of coco, yolo, csv, jsonl"):
        result_files(("voc",), Path("out"))  # type: ignore[arg-type]


def test_what_cannot_be_written_is_said_before(tmp_path: Path) -> None:
    check_results({"coco": tmp_path / "a.json", "csv": tmp_path / "a.csv"})
    with pytest.raises(InputError, match=r"a\.csv is the name of two files"):
        check_results({"csv": tmp_path / "a.csv", "jsonl": tmp_path / "a.csv"})
    with pytest.raises(InputError, match=r"a-results\.json is the name of two files"):
        check_results({"coco": tmp_path / "a.json", "jsonl": tmp_path / "a-results.json"})
    with pytest.raises(InputError, match=r"a\.jpg is the name of two files"):
        check_results({"csv": tmp_path / "a.jpg"}, [tmp_path / "b.jpg", tmp_path / "x" / ".." / "a.jpg"])
    with pytest.raises(OutputError, match="cannot be written"):
        check_results({"csv": tmp_path})
    (tmp_path / "yolo").mkdir()
    check_results({"yolo": tmp_path / "yolo"})
    (tmp_path / "yolo" / "data.yaml").touch()
    with pytest.raises(OutputError, match=r"yolo is there already, and its labels may have been corrected: remove it"):
        check_results({"yolo": tmp_path / "yolo"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["yolo"]
