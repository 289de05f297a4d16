"""The files of a report."""

from __future__ import annotations

import json
from pathlib import Path

from gfl_edge.files import write_atomically
from gfl_edge.report.document import document
from gfl_edge.report.html import page
from gfl_edge.report.markdown import markdown
from gfl_edge.report.schema import Report

TITLE = "gfl_edge: speed and accuracy"


def write_report(report: Report, folder: Path) -> Path:
    """Write the pages, and last ``report.json``, into ``folder``; where the HTML page is.

    Each file is whole or not there; other files in the folder stay.
    """
    html = write_pages(report, folder)
    write_atomically(folder / "report.json", f"{json.dumps(report.to_dict(), indent=1)}\n".encode())
    return html


def write_pages(report: Report, folder: Path) -> Path:
    """Write ``report.html``, and ``report.md`` with its figures, into ``folder``; where the HTML page is."""
    html, sections = folder / "report.html", document(report)
    write_atomically(html, page(TITLE, sections).encode())
    for figure in (figure for section in sections for figure in section.figures):
        write_atomically(folder / f"{figure.name}.svg", figure.svg)
    write_atomically(folder / "report.md", markdown(TITLE, sections).encode())
    return html
