"""Curves as SVG pictures, drawn by matplotlib."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from gfl_edge import optional

Points = Sequence[tuple[float, float]]


def line_chart(
    title: str, x_label: str, y_label: str, curves: Mapping[str, Points], *, from_zero: bool = False
) -> bytes:
    """Curves over a common axis.

    Args:
        title: what is shown.
        x_label: quantity and unit.
        y_label: quantity and unit.
        curves: points (x, y) by the name in the legend.
        from_zero: the y axis begins at 0, so that small changes look small.
    """
    figure = _figure(7, 4)
    axes = figure.add_subplot()
    for name, points in curves.items():
        axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=name)
    axes.set(title=title, xlabel=x_label, ylabel=y_label)
    if from_zero:
        axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    return _svg(figure)


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
        axes.plot(values, [row] * len(values), "o", color="C0", alpha=0.6)
        axes.plot([sum(values) / len(values)], [row], "|", color="black", markersize=18)
    axes.set(title=title, xlabel=x_label)
    axes.set_yticks(range(len(groups)), groups)
    axes.invert_yaxis()
    axes.grid(alpha=0.3, axis="x")
    return _svg(figure)


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
        axes.barh(list(parts), lengths, left=list(starts.values()), label=name)
        starts = {row: starts[row] + values[name] for row, values in parts.items()}
    axes.set(title=title, xlabel=x_label)
    axes.invert_yaxis()
    axes.legend(ncols=len(names), loc="upper center", bbox_to_anchor=(0.5, -0.25))
    return _svg(figure)


def _figure(width: float, height: float) -> Any:
    return optional.load("matplotlib.figure").Figure(figsize=(width, height), layout="constrained")


def _svg(figure: Any) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="svg", metadata={"Date": None})
    return content.getvalue()
