"""The documents, the tables in them, and the committed results that their figures come from."""

from __future__ import annotations

import json
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
DOCUMENTS = (CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").glob("*.md")))
TEXT = "\n".join(path.read_text() for path in DOCUMENTS)
NAMES = {"NanoDet-m": "nanodet-m", "NanoDet-g": "nanodet-g", "NanoDet-Plus-m": "nanodet-plus-m"}


def result(name):
    return json.loads((CHECKOUT / "benchmarks" / "results" / name).read_text())


def table(first_header):
    """Rows of cells of the table whose first header that is."""
    lines = TEXT.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {first_header} |"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    assert rows
    return rows


def title(name):
    """A model's name as the documents write it."""
    kind, _, size = name.rpartition("-")
    return f"{next(text for text, known in NAMES.items() if known == kind)}, {size}"
