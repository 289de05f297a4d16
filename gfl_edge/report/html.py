"""A report as one HTML page that needs nothing else: no network, no other file, no script.

Its markup and style are those of report.html.j2, a template of Jinja (the extra ``report``), which escapes all text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from importlib import resources

from gfl_edge import optional
from gfl_edge.report.document import Section
from gfl_edge.report.figures import Figure
from gfl_edge.report.plots import INK
from gfl_edge.terminal.printable import printable

_NUMBER = re.compile(r"[-+]?[\d.]+|-")
_LONG = 60  # characters from which on a cell is a sentence
_WORDS = 30  # ... or at least several words


def page(title: str, sections: Sequence[Section]) -> str:
    """The whole page."""
    jinja2 = optional.load("jinja2")
    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: printable(value) if type(value) is str else value,  # what is markup is of another type
    )
    environment.tests["numeric"] = _NUMBER.fullmatch
    environment.filters.update(cell_class=_cell_class, inline_svg=inline_svg)
    template = resources.files(__package__).joinpath("report.html.j2").read_text("utf-8")
    return str(environment.from_string(template).render(title=title, sections=sections))


def _cell_class(text: str) -> str | None:
    """How the style lays out a cell; None: as it is."""
    if _NUMBER.fullmatch(text):
        return "number"
    return "long" if len(text) > _LONG else "words" if len(text) > _WORDS else None


def inline_svg(figure: Figure) -> str:
    """A chart of :mod:`gfl_edge.report.plots` as part of a page, in the page's own text color and background."""
    text = figure.svg.decode()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r"fill: #ffffff", "fill: none", text)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{figure.name}-", text)  # ids are those of the page
    opening, rest = text.split(">", 1)
    points = re.search(r'width="([\d.]+)pt"', opening)
    assert points is not None
    opening = re.sub(r'\b(width|height)="[\d.]+pt"', "", opening)  # it takes the width that it is given
    own = f'role="img" aria-label="{escape(figure.words)}" style="max-width: {float(points[1]) * 96 / 72:.0f}px"'
    return opening.replace("<svg", f"<svg {own}", 1) + ">" + rest
