"""A report as one HTML page that needs nothing else: no network, no other file, no script."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

from gfl_edge.report.figures import Figure
from gfl_edge.report.plots import INK
from gfl_edge.report.sections import Section, Table

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2126; --soft: #59626d; --ground: #ffffff; --panel: #f4f6f8;
  --line: #d4dae0; --warn: #8a4b00; --warn-ground: #fff4e0; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ec; --soft: #a3adb8; --ground: #15181c; --panel: #1f242a;
  --line: #3a424b; --warn: #ffc27a; --warn-ground: #33270f; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 24px 24px 64px; }
h1 { font-size: 1.7rem; margin: 0 0 8px; }
h2 { font-size: 1.25rem; margin: 40px 0 8px; padding-top: 12px; border-top: 1px solid var(--line); }
p, li { max-width: 80ch; overflow-wrap: anywhere; }
p { margin: 8px 0; }
nav ul { display: flex; flex-wrap: wrap; gap: 4px 16px; padding: 0; list-style: none; margin: 8px 0; }
a { color: inherit; }
.scroll { overflow-x: auto; margin: 12px 0; border: 1px solid var(--line); border-radius: 6px; }
table { border-collapse: collapse; width: 100%; font-size: 0.875rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: 8px 12px; color: var(--soft); position: sticky; left: 0; }
th, td { padding: 5px 10px; text-align: left; vertical-align: top; border-top: 1px solid var(--line); }
thead th { background: var(--panel); white-space: nowrap; }
tbody th { font-weight: 600; white-space: nowrap; }
th.number, td.number { text-align: right; }
td { white-space: nowrap; }
td.words, td.long { white-space: normal; }
td.words { min-width: 9.5rem; }
td.long { min-width: 22rem; }
ul.warnings { background: var(--warn-ground); color: var(--warn); padding: 10px 12px 10px 32px; border-radius: 6px; }
figure { margin: 16px 0; }
figure svg { display: block; width: 100%; height: auto; }
figcaption { color: var(--soft); font-size: 0.875rem; max-width: 80ch; }
@media (max-width: 640px) { main { padding: 16px 12px 40px; } figure { overflow-x: auto; }
  figure svg { min-width: 560px; } }
@media print { :root { --ink: #000; --ground: #fff; --panel: #eee; --soft: #444; } nav { display: none; }
  main { max-width: none; padding: 0; } .scroll { overflow: visible; border: 0; } table { font-size: 7.5pt; }
  th, td { padding: 2px 4px; } td.long, td.words { min-width: 0; } thead th, tbody th { white-space: normal; }
  figure, tr { break-inside: avoid; } h2 { break-after: avoid; } }
"""
_LONG = 60  # characters from which on a cell is a sentence
_NUMBER = re.compile(r"[-+]?[\d.]+|-")
_WORDS = 30  # ... or at least several words


def page(title: str, sections: Sequence[Section]) -> str:
    """The whole page."""
    names = [f"part-{index}" for index in range(1, len(sections) + 1)]
    links = "".join(
        f'<li><a href="#{name}">{escape(section.title)}</a></li>' for name, section in zip(names, sections, strict=True)
    )
    body = "\n".join(_section(name, section) for name, section in zip(names, sections, strict=True))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<h1>{escape(title)}</h1>
<nav aria-label="Sections"><ul>{links}</ul></nav>
{body}
</main>
</body>
</html>
"""


def _section(name: str, section: Section) -> str:
    parts = [f'<h2 id="{name}">{escape(section.title)}</h2>', *(f"<p>{escape(text)}</p>" for text in section.words)]
    if section.points:
        kind = ' class="warnings"' if section.points[0].startswith("Warning") else ""
        parts.append(f"<ul{kind}>{''.join(f'<li>{escape(point)}</li>' for point in section.points)}</ul>")
    parts += map(_table, section.tables)
    parts += map(_figure, section.figures)
    return f'<section aria-labelledby="{name}">\n' + "\n".join(parts) + "\n</section>"


def _table(table: Table) -> str:
    columns = zip(*table.rows, strict=True) if table.rows else [()] * len(table.headers)
    head = "".join(map(_header, table.headers, columns))
    rows = "".join(
        f'<tr><th scope="row">{escape(first)}</th>{"".join(map(_cell, rest))}</tr>\n' for first, *rest in table.rows
    )
    caption = escape(table.caption)
    return (
        f'<div class="scroll" role="region" aria-label="{caption}" tabindex="0"><table><caption>{caption}</caption>'
        f"<thead><tr>{head}</tr></thead>\n<tbody>{rows}</tbody></table></div>"
    )


def _header(text: str, cells: Sequence[str]) -> str:
    kind = ' class="number"' if any(map(_NUMBER.fullmatch, cells)) else ""
    return f'<th scope="col"{kind}>{escape(text)}</th>'


def _cell(text: str) -> str:
    if _NUMBER.fullmatch(text):
        return f'<td class="number">{escape(text)}</td>'
    kind = "long" if len(text) > _LONG else "words" if len(text) > _WORDS else ""
    return f'<td class="{kind}">{escape(text)}</td>' if kind else f"<td>{escape(text)}</td>"


def _figure(figure: Figure) -> str:
    return f"<figure>{inline_svg(figure)}<figcaption>{escape(figure.words)}</figcaption></figure>"


def inline_svg(figure: Figure) -> str:
    """A chart of :mod:`gfl_edge.report.plots` as part of a page, in the page's own text colour and background."""
    text = figure.svg.decode()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r"fill: #ffffff", "fill: none", text)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{figure.name}-", text)  # ids are those of the page
    text, width = _without_size(text)
    words = escape(figure.words)
    return text.replace("<svg", f'<svg role="img" aria-label="{words}" style="max-width: {width:.0f}px"', 1)


def _without_size(svg: str) -> tuple[str, float]:
    """A picture that takes the width it is given, and the pixels that it has by itself."""
    opening, rest = svg.split(">", 1)
    points = re.search(r'width="([\d.]+)pt"', opening)
    assert points is not None
    return re.sub(r'\b(width|height)="[\d.]+pt"', "", opening) + ">" + rest, float(points[1]) * 96 / 72
