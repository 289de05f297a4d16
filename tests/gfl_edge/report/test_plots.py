"""The charts: what they show is there as text, they are the same every time, and they leave matplotlib alone."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

from gfl_edge.report.plots import Spread, bar_chart, dot_chart, line_chart, point_chart, ranked_bars, spread_chart

matplotlib = pytest.importorskip("matplotlib")

CHARTS = {
    "line": lambda: line_chart("Title", "x", "y", {"first": [(1, 2), (2, 3)], "second": [(1, 1)]}),
    "dot": lambda: dot_chart("Title", "x", {"first": [1, 2, 3], "second": [4]}),
    "bar": lambda: bar_chart("Title", "x", {"row": {"first": 1.0, "second": 2.0}}),
    "ranked": lambda: ranked_bars("Title", "x", [("a", 1.0, "first"), ("b", 2.0, "second")]),
    "point": lambda: point_chart("Title", "x", "y", {"first": [(1, 2, "m")], "second": [(2, 2, "m")]}),
    "spread": lambda: spread_chart(
        "Title", "x", {"first": Spread(1, 2, 3, 4, 5, 6), "second": Spread(1, 1, 1, 1, 1, 1)}
    ),
}


@pytest.mark.parametrize("kind", CHARTS)
def test_a_chart_says_what_it_shows(kind):
    chart = CHARTS[kind]()
    texts = {element.text for element in ElementTree.fromstring(chart).iter() if element.text}
    assert {"Title", "x", "first", "second"} <= texts
    assert chart == CHARTS[kind]()


def test_the_style_stays_inside():
    before = dict(matplotlib.rcParams)
    for draw in CHARTS.values():
        draw()
    assert dict(matplotlib.rcParams) == before
