"""A report as Markdown, its figures as files beside it or left out."""

from __future__ import annotations

import re
from collections.abc import Sequence

from gfl_edge.report.document import Section, Table
from gfl_edge.terminal.printable import printable

# Code, tables, HTML, links and images, math; what emphasizes does no harm, and is in many names
_MARKUP = re.compile(r"[\\`|<>\[\]$]")


def markdown(title: str, sections: Sequence[Section]) -> str:
    """The whole page; figures are links to ``NAME.svg``."""
    blocks = [f"# {title}"]
    for section in sections:
        blocks += [f"## {section.title}", *map(as_text, section.words)]
        if section.points:
            blocks.append("\n".join(f"- {as_text(point)}" for point in section.points))
        for table in section.tables:
            blocks += [f"{as_text(table.caption)}:", table_text(table)]
        blocks += [f"![{figure.words}]({figure.name}.svg)" for figure in section.figures]
    return "\n\n".join(blocks) + "\n"


def table_text(table: Table) -> str:
    """A table with aligned columns, readable as plain text, too."""
    rows = [tuple(map(as_text, row)) for row in (table.headers, *table.rows)]
    widths = [max(3, *(len(row[column]) for row in rows)) for column in range(len(table.headers))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def as_text(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return _MARKUP.sub(r"\\\g<0>", printable(text))
