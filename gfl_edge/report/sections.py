"""The parts that a report for people is made of."""

from __future__ import annotations

from dataclasses import dataclass

from gfl_edge.report.figures import Figure

NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Table:
    """Cells as text, and what the table shows."""

    caption: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Section:
    """A part of the report; shown in the order words, points, tables, figures."""

    title: str
    words: tuple[str, ...] = ()
    points: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()


def number(value: float | None, digits: int = 2, missing: str = NOT_MEASURED) -> str:
    """A number with so many digits after the point."""
    return missing if value is None else f"{value:.{digits}f}"


def milliseconds(value: float | None, missing: str = NOT_MEASURED) -> str:
    """A time with as many digits after the point as mean something: 4.56, 45.67, 456.8, 4568."""
    return number(value, 2 if value is None or value < 100 else 1 if value < 1000 else 0, missing)
