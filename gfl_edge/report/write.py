"""The files of a report."""

from __future__ import annotations

from pathlib import Path

from gfl_edge.files import write_together
from gfl_edge.parsing.json_text import json_text
from gfl_edge.report.document import document
from gfl_edge.report.html import page
from gfl_edge.report.markdown import markdown
from gfl_edge.report.schema import Report

HTML_NAME, JSON_NAME = "report.html", "report.json"
TITLE = "gfl_edge: speed and accuracy"


def write_report(report: Report, folder: Path) -> Path:
    """Write the pages and ``report.json`` into ``folder``; where the HTML page is.

    All of them are written, or on an error none; other files in the folder stay.

    Raises:
        OutputError: they cannot be written.
    """
    content = f"{json_text(report.to_dict(), indent=1)}\n".encode()
    write_together({**_pages(report, folder), folder / JSON_NAME: content})
    return folder / HTML_NAME


def write_pages(report: Report, folder: Path) -> Path:
    """Write ``report.html``, and ``report.md`` with its figures, into ``folder``; where the HTML page is."""
    write_together(_pages(report, folder))
    return folder / HTML_NAME


def _pages(report: Report, folder: Path) -> dict[Path, bytes]:
    """Contents by path."""
    sections = document(report)
    figures = {folder / f"{figure.name}.svg": figure.svg for section in sections for figure in section.figures}
    pages = {folder / HTML_NAME: page(TITLE, sections).encode(), **figures}
    return {**pages, folder / "report.md": markdown(TITLE, sections).encode()}
