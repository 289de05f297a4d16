"""Names from checkpoints in messages: those of keys, classes and functions, which may be of any length and content."""

from __future__ import annotations

from collections.abc import Sequence

from gfl_edge.terminal.printable import printable

MAX_LISTED = 8
MAX_CHARS = 160


def short(name: object) -> str:
    """A name on one line of printable characters, without its middle where it is long."""
    text = str(name)
    if len(text) > MAX_CHARS:
        half = MAX_CHARS // 2
        text = f"{text[:half]}...{text[-half:]}"
    return printable(text)


def listed(names: Sequence[object]) -> str:
    """The first of the names, and how many more there are."""
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return ", ".join(map(short, names[:MAX_LISTED])) + more
