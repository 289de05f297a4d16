"""The pages of a report, from stored values."""

from __future__ import annotations

import copy
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from gfl_edge.report import schema
from gfl_edge.report.against import read_report
from gfl_edge.report.document import document
from gfl_edge.report.html import page
from gfl_edge.report.markdown import table_text
from gfl_edge.report.schema import Report
from gfl_edge.report.write import write_report

pytest.importorskip("onnxruntime")
pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")


class Page(HTMLParser):
    """Checks nesting, and collects what a page refers to and holds."""

    VOID = ("meta", "br", "hr", "img", "link", "input")

    def __init__(self):
        super().__init__()
        self.open, self.references, self.ids, self.tables, self.headings = [], [], [], [], []
        self.images, self.texts = [], []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if tag not in self.VOID:
            self.open.append(tag)
        self.references += [
            values[name] for name in ("src", "href", "xlink:href", "srcset", "data", "action") if name in values
        ]
        self.references += re.findall(r"url\(([^)]*)\)", " ".join(str(value) for value in values.values()))
        self.ids += [values["id"]] if "id" in values else []
        assert tag not in ("script", "iframe", "link", "object", "embed")
        if tag == "th":
            assert values["scope"] in ("col", "row")
        if tag == "svg":
            assert values["role"] == "img"
            self.images.append(values["aria-label"])

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.texts.append(data)


def parse(report):
    parser, text = Page(), page("Title", document(Report.from_dict(report)))
    parser.feed(text)
    parser.close()
    return parser, text


def test_the_page_needs_nothing_else(stored):
    parser, text = parse(stored)
    assert parser.open == []
    assert all(reference.startswith("#") for reference in parser.references), parser.references
    assert {reference[1:] for reference in parser.references} <= set(parser.ids)
    assert len(set(parser.ids)) == len(parser.ids)
    assert "@import" not in text
    assert not re.findall(r"https?://(?!www\.w3\.org/)", text)
    assert len(parser.images) == 4
    assert all(len(label) > 20 for label in parser.images)


def test_the_page_says_what_was_and_was_not_measured(stored):
    texts = " ".join(parse(stored)[0].texts)
    for wanted in (
        "tiny",
        "not measured",
        "power cap reached",
        "gfl-x101-dcn-2x (the target)",
        "48.3",
        "3.33",
        "Jetson",
    ):
        assert wanted in texts or wanted in json.dumps(stored["gpus"])
    assert "bounds from the graph's own multiplications and bytes, not measurements" in texts
    assert "Command: gfl-edge bench" in texts


def test_pages_of_a_report_with_little_in_it(measured):
    """No AP, no batches, an engine without a graph, a model that did not run."""
    little = copy.deepcopy(measured)
    little["runs"] = little["runs"][:1]
    little["settings"]["annotations"] = None
    little["models"][0].update(accuracy=None, cost=None, bounds=[])
    parser, _ = parse(little)
    texts = " ".join(parser.texts)
    assert "AP was not measured" in texts
    assert "Throughput by batch was not measured" in texts
    assert "No bound" in texts
    assert len(parser.images) == 2
    idle = copy.deepcopy(measured)
    idle["runs"], idle["models"][0]["backend"], idle["models"][0]["memory"] = [], None, None
    assert "not run" in " ".join(parse(idle)[0].texts)


def test_presenting_imports_nothing_that_measures():
    sources = Path(schema.__file__).parent.glob("*.py")
    assert [path.name for path in sources if "gfl_edge.bench" in path.read_text()] == []


def test_text_is_escaped(stored):
    stored["command"] = "<script>alert(1)</script>"
    parser, text = parse(stored)
    assert "&lt;script&gt;" in text
    assert "script" in " ".join(parser.texts)


def test_markdown_tables_are_aligned(stored):
    for section in document(Report.from_dict(stored)):
        for table in section.tables:
            lines = table_text(table).splitlines()
            assert len(lines) == 2 + len(table.rows)
            assert len({len(line) for line in lines}) == 1
            assert all(len(row) == len(table.headers) for row in table.rows)


def test_the_files(stored, tmp_path):
    (tmp_path / "other.txt").write_text("stays")
    report = Report.from_dict(stored)
    write_report(report, tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"report.json", "report.html", "report.md", "other.txt"} <= names
    text = (tmp_path / "report.md").read_text()
    charts = set(re.findall(r"\]\((\S+\.svg)\)", text))
    assert charts == {name for name in names if name.endswith(".svg")} != set()
    assert read_report(tmp_path) == read_report(tmp_path / "report.json") == report
