"""Charts as SVG, drawn by matplotlib (the extra ``report``).

Every function returns the bytes of a chart that is the same for the same values.
"""

from __future__ import annotations

import functools
import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec

from gfl_edge import optional
from gfl_edge.terminal.printable import printable

FEW = 8  # values on an axis, each of which is marked
MAX_NAME = 60  # characters of a name; more leave no room for the chart

Points = Sequence[tuple[float, float]]

INK = "#333333"  # of text, axes and marks; no data has it, so that a page can put its own color in its place
SERIES = ("#3b7dd8", "#e0762f", "#2f9e63", "#b455c8", "#b89600", "#d64550", "#2aa3b5", "#8a6d5a")
_STYLE = {
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
    "axes.prop_cycle": f"cycler('linestyle', ['-', '--']) * cycler('color', {list(SERIES)})",
    "grid.color": "#888888",
    "legend.framealpha": 0.0,
    "font.size": 10,
    "axes.titlesize": 11,
    "svg.fonttype": "none",  # text stays text: small, and a reader's machine can search it
    "svg.hashsalt": "gfl_edge",
    "text.parse_math": False,  # a name with two dollars is a name
}

P = ParamSpec("P")


def _styled(draw: Callable[P, bytes]) -> Callable[P, bytes]:
    """Draw in the project's style, without leaving it to other users of matplotlib in this process."""

    @functools.wraps(draw)
    def styled(*args: P.args, **kwargs: P.kwargs) -> bytes:
        with optional.load("matplotlib").rc_context(_STYLE), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing")  # text stays text, in a font of the reader's
            return draw(*args, **kwargs)

    return styled


def shown_name(name: str) -> str:
    """A name as it stands in a chart: printable, not too long for it, and never one that matplotlib hides."""
    shown = printable(name)
    shown = shown if len(shown) <= MAX_NAME else f"{shown[: MAX_NAME - 3]}..."
    return f" {shown}" if shown.startswith("_") or not shown else shown


@dataclass(frozen=True)
class Spread:
    """Where the values of a row lie: the percentiles that :func:`spread_chart` draws."""

    p5: float
    p25: float
    p50: float
    p75: float
    p95: float
    p99: float


@_styled
def line_chart(
    title: str,
    x_label: str,
    y_label: str,
    curves: Mapping[str, Points],
    from_zero: bool = False,
    marked: bool = True,
) -> bytes:
    """Curves over a common axis.

    Args:
        title: what is shown.
        x_label: quantity and unit.
        y_label: quantity and unit.
        curves: points (x, y) by the name in the legend.
        from_zero: the y axis begins at 0, so that small changes look small.
        marked: a dot at every point.
    """
    figure = _figure(7, 4)
    axes = figure.add_subplot()
    for name, points in curves.items():
        axes.plot(*zip(*points, strict=True), marker="o" if marked else "", markersize=3, label=shown_name(name))
    axes.set(title=printable(title), xlabel=printable(x_label), ylabel=printable(y_label))
    if from_zero:
        axes.set_ylim(bottom=0)
    values = sorted({x for points in curves.values() for x, _ in points})
    if len(values) <= FEW:  # such as batch sizes: nothing lies between them
        axes.set_xticks(values)
    axes.grid(alpha=0.3)
    _legend_below(figure)
    return _svg(figure)


@_styled
def dot_chart(title: str, x_label: str, groups: Mapping[str, Sequence[float]]) -> bytes:
    """The values of each group as dots on a line of its own, with their mean.

    Args:
        title: what is shown.
        x_label: quantity and unit.
        groups: values by the name of their line.
    """
    figure = _figure(7, 0.6 * len(groups) + 1.4)
    axes = figure.add_subplot()
    for row, values in enumerate(groups.values()):
        axes.plot(values, [row] * len(values), "o", color=SERIES[0], alpha=0.6)
        axes.plot([sum(values) / len(values)], [row], "|", color=INK, markersize=18)
    axes.set(title=printable(title), xlabel=printable(x_label))
    axes.set_yticks(range(len(groups)), [*map(shown_name, groups)])
    axes.invert_yaxis()
    axes.grid(alpha=0.3, axis="x")
    return _svg(figure)


@_styled
def bar_chart(title: str, x_label: str, parts: Mapping[str, Mapping[str, float]]) -> bytes:
    """One horizontal bar per row, made of parts side by side.

    Args:
        title: what is shown.
        x_label: quantity and unit.
        parts: row -> part -> length.
    """
    figure = _figure(7, 0.6 * len(parts) + 1.6)
    axes = figure.add_subplot()
    names = list(next(iter(parts.values())))
    starts = dict.fromkeys(parts, 0.0)
    for name in names:
        lengths = [values[name] for values in parts.values()]
        axes.barh(range(len(parts)), lengths, left=list(starts.values()), label=shown_name(name))
        starts = {row: starts[row] + values[name] for row, values in parts.items()}
    axes.set_yticks(range(len(parts)), [*map(shown_name, parts)])
    axes.set(title=printable(title), xlabel=printable(x_label))
    axes.invert_yaxis()
    _legend_below(figure)
    return _svg(figure)


@_styled
def ranked_bars(title: str, x_label: str, rows: Sequence[tuple[str, float, str]]) -> bytes:
    """A bar for each row, from the top down; rows of a group share a color.

    Args:
        title: what is shown.
        x_label: quantity and unit.
        rows: name, length, and the group's name in the legend.
    """
    figure = _figure(8, 0.24 * len(rows) + 1.4)
    axes = figure.add_subplot()
    for group, color in zip(sorted({group for _, _, group in rows}), SERIES, strict=False):
        found = [(i, length) for i, (_, length, own) in enumerate(rows) if own == group]
        axes.barh(*zip(*found, strict=True), color=color, label=shown_name(group))
    axes.set_yticks(range(len(rows)), [shown_name(name) for name, _, _ in rows], fontsize=7)
    axes.set(title=printable(title), xlabel=printable(x_label))
    axes.invert_yaxis()
    axes.grid(alpha=0.3, axis="x")
    axes.legend()
    return _svg(figure)


@_styled
def point_chart(
    title: str, x_label: str, y_label: str, groups: Mapping[str, Sequence[tuple[float, float, str]]]
) -> bytes:
    """Labeled points; those with the same label are joined by a thin line.

    Args:
        title: what is shown.
        x_label: quantity and unit.
        y_label: quantity and unit.
        groups: points (x, y, label) by the name in the legend.
    """
    figure = _figure(8, 4.6)
    axes = figure.add_subplot()
    by_label: dict[str, list[tuple[float, float]]] = {}
    for (name, points), color in zip(groups.items(), SERIES, strict=False):
        axes.plot(
            [x for x, _, _ in points], [y for _, y, _ in points], "o", color=color, label=shown_name(name), zorder=3
        )
        for x, y, label in points:
            by_label.setdefault(label, []).append((x, y))
    for label, places in by_label.items():
        axes.plot(*zip(*sorted(places), strict=True), color=INK, alpha=0.35, linewidth=1)
        axes.annotate(shown_name(label), max(places), textcoords="offset points", xytext=(7, -3), fontsize=9)
    left, right = axes.get_xlim()
    axes.set_xlim(left, right + 0.25 * (right - left))  # room for the labels
    axes.margins(y=0.12)
    axes.set(title=printable(title), xlabel=printable(x_label), ylabel=printable(y_label))
    axes.grid(alpha=0.3)
    _legend_below(figure)
    return _svg(figure)


@_styled
def spread_chart(title: str, x_label: str, rows: Mapping[str, Spread]) -> bytes:
    """A box per row from the 25th to the 75th percentile with the median, whiskers from 5 to 95, and a dot at 99.

    Args:
        title: what is shown.
        x_label: quantity and unit.
        rows: by name, from the top down.
    """
    figure = _figure(8, 0.34 * len(rows) + 1.5)
    axes = figure.add_subplot()
    for row, spread in enumerate(rows.values()):
        axes.hlines(row, spread.p5, spread.p95, color=INK, linewidth=1)
        axes.barh(row, spread.p75 - spread.p25, left=spread.p25, height=0.55, color=SERIES[0])
        axes.vlines(spread.p50, row - 0.36, row + 0.36, color=INK, linewidth=2)
        axes.plot([spread.p99], [row], "o", color=SERIES[1], markersize=4)
    axes.set(title=printable(title), xlabel=printable(x_label))
    axes.set_yticks(range(len(rows)), [*map(shown_name, rows)])
    axes.set_xlim(left=0)
    axes.invert_yaxis()
    axes.grid(alpha=0.3, axis="x")
    return _svg(figure)


@_styled
def heat_chart(
    title: str, x_label: str, y_label: str, names: Sequence[str], values: Sequence[Sequence[float]]
) -> bytes:
    """A square of counts, each row shaded in parts of its sum; a count that is not 0 stands in its field.

    Args:
        title: what is shown.
        x_label: of the columns.
        y_label: of the rows.
        names: of the rows, from the top down, and of the columns.
        values: by row and column.
    """
    side = 0.34 * len(names) + 2.2
    figure = _figure(side, side)
    axes = figure.add_subplot()
    shares = [[value / (sum(row) or 1) for value in row] for row in values]
    axes.pcolormesh(shares, cmap="Blues", vmin=0, vmax=1, edgecolors="#dddddd", linewidth=0.5)
    for y, row in enumerate(values):
        for x, value in enumerate(row):
            if value:
                # Not white, which is what a page takes for its own ground
                color = "#fefefe" if shares[y][x] > 0.5 else "black"
                axes.text(x + 0.5, y + 0.5, f"{value:g}", ha="center", va="center", fontsize=6, color=color)
    places = [place + 0.5 for place in range(len(names))]
    axes.set_xticks(places, [*map(shown_name, names)], rotation=90, fontsize=7)
    axes.set_yticks(places, [*map(shown_name, names)], fontsize=7)
    axes.set(title=printable(title), xlabel=printable(x_label), ylabel=printable(y_label))
    axes.invert_yaxis()
    return _svg(figure)


def _figure(width: float, height: float) -> Any:
    return optional.load("matplotlib.figure").Figure(figsize=(width, height), layout="constrained")


def _legend_below(figure: Any) -> None:
    """Where it hides nothing, in rows as wide as the figure."""
    labels = figure.axes[0].get_legend_handles_labels()[1]
    columns = max(1, int(figure.get_figwidth() * 10) // (max(map(len, labels)) + 7))
    figure.legend(loc="outside lower center", ncols=min(columns, len(labels)))


def _svg(figure: Any) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return content.getvalue()
