"""Names from checkpoints in messages: those of keys, classes and functions, which may be of any length and content."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

MAX_LISTED = 8
MAX_CHARS = 160


def printable(name: object) -> str:
    """A name on one line of printable characters, cut in the middle where it is long."""
    text = str(name)
    if len(text) > MAX_CHARS:
        half = MAX_CHARS // 2
        text = f"{text[:half]}...{text[-half:]}"
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def listed(names: Sequence[object]) -> str:
    """The first of the names, and how many more there are."""
    shown: Iterable[str] = map(printable, names[:MAX_LISTED])
    return ", ".join(shown) + (f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else "")
