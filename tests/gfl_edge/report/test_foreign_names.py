"""Names of models, classes and files that would do something in a page or a chart."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from gfl_edge.report.against import read_report
from gfl_edge.report.document import Table
from gfl_edge.report.markdown import as_text, table_text
from gfl_edge.report.plots import (
    MAX_NAME,
    Spread,
    bar_chart,
    dot_chart,
    line_chart,
    point_chart,
    ranked_bars,
    spread_chart,
)
from gfl_edge.report.write import write_pages

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

NAMES = (
    r"$\frac$",
    "$x$ and $y$",
    "a|b",
    "<script>alert(1)</script>",
    "</text></svg><script>alert(1)</script>",
    "`code` **bold** ![](http://127.0.0.1/x.png) [link](javascript:x)",
    "two\nlines\r\n# heading",
    "\x1b]0;title\x07\x1b[31mred\x00",
    "\u202egnp.exe",
    "a\u2028b\u2029c\x85d",
    "\udcff\udcfe",
    "_hidden",
    "",
    " ",
    "%s %d {} {0}",
    "人工知能",
    "\U0001f6b2\ufffe\U0010ffff",
    "&amp; &lt; \" '",
    "\\",
    "x" * 5000,
    "-0.5",
)
STORED = Path(__file__).resolve().parents[3] / "benchmarks" / "results" / "report" / "report.json"


SPREAD = Spread(1, 2, 3, 4, 5, 6)
CHARTS: tuple[Callable[[str], bytes], ...] = (
    lambda name: line_chart(name, name, name, {name: [(1, 2), (2, 3)], "other": [(1, 1)]}),
    lambda name: dot_chart(name, name, {name: [1, 2], "other": [3]}),
    lambda name: bar_chart(name, name, {name: {name: 1, "b": 2}, "other": {name: 3, "b": 4}}),
    lambda name: ranked_bars(name, name, [(name, 1, name), ("other", 2, "b")]),
    lambda name: point_chart(name, name, name, {name: [(1, 2, name)], "other": [(2, 3, "b")]}),
    lambda name: spread_chart(name, name, {name: SPREAD, "other": SPREAD}),
)


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_charts_show_it_as_text(name: str) -> None:
    """``$\\frac$`` once ended the report after the measurement."""
    for draw in [*CHARTS, *CHARTS][NAMES.index(name) % len(CHARTS) :][:2]:  # each chart sees a third of the names
        svg = draw(name)
        root = ElementTree.fromstring(svg)
        tags = {element.tag.rpartition("}")[2] for element in root.iter()}
        assert "script" not in tags
        if name == r"$\frac$":
            assert rb"$\frac$" in svg


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_a_cell_of_a_table_stays_one(name: str) -> None:
    lines = table_text(Table("t", ("a", "b"), ((name, "1"), ("c", name)))).split("\n")
    assert len(lines) == 4
    for line in lines:
        assert line.isprintable()
        assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) == 3
        assert not re.search(r"(?<!\\)(?:\\\\)*[<`\[$]", line)


def test_as_text_is_what_it_was() -> None:
    assert as_text("nanodet_m-320 (the target), 0.5 * 2, C: 5 %") == "nanodet_m-320 (the target), 0.5 * 2, C: 5 %"


def renamed(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: renamed(part, names) for key, part in value.items()}
    if isinstance(value, list):
        return [renamed(part, names) for part in value]
    return names.get(value, value) if isinstance(value, str) else value


def test_a_report_whose_models_have_such_names(tmp_path: Path) -> None:
    stored = json.loads(STORED.read_text())
    old = {value for model in stored["models"] for value in (model["id"], model["name"], model["file"])}
    stored["command"] = NAMES[3]
    text = [name for name in NAMES if "\udcff" not in name]  # which is none in a file of JSON
    nasty = [f"{text[i % len(text)]}{i}" for i in range(len(old))]
    (tmp_path / "report.json").write_text(json.dumps(renamed(stored, dict(zip(sorted(old), nasty, strict=True)))))
    write_pages(read_report(tmp_path / "report.json"), tmp_path)
    html, markdown = (tmp_path / "report.html").read_text(), (tmp_path / "report.md").read_text()
    assert "<script" not in html
    assert not re.search(r"(?<!\\)<script", markdown)
    for text in (html, markdown, *(path.read_text() for path in tmp_path.glob("*.svg"))):
        assert re.sub(r"[\n\u2212]", "", text).isprintable()
    names = [len(text) for text in re.findall(r">([^<]*)</text>", (tmp_path / "latency.svg").read_text())]
    assert max(names) <= 70 > MAX_NAME
