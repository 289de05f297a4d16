"""A report as Markdown, its figures as files beside it or left out."""

from __future__ import annotations

from collections.abc import Sequence

from gfl_edge.report.document import Section, Table


def markdown(title: str, sections: Sequence[Section]) -> str:
    """The whole page; figures are links to ``NAME.svg``."""
    blocks = [f"# {title}"]
    for section in sections:
        blocks += [f"## {section.title}", *section.words]
        if section.points:
            blocks.append("\n".join(f"- {point}" for point in section.points))
        for table in section.tables:
            blocks += [f"{table.caption}:", table_text(table)]
        blocks += [f"![{figure.words}]({figure.name}.svg)" for figure in section.figures]
    return "\n\n".join(blocks) + "\n"


def table_text(table: Table) -> str:
    """A table with aligned columns, readable as plain text, too."""
    rows = [tuple(cell.replace("|", "\\|") for cell in row) for row in (table.headers, *table.rows)]
    widths = [max(3, *(len(row[column]) for row in rows)) for column in range(len(table.headers))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])
