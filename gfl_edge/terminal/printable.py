"""Foreign text, such as names of files, classes and models, as a terminal, a log, a page or a chart can show it."""

from __future__ import annotations

import shlex

MAX_LINE = 4000  # characters; the rest of a longer line is only counted


def printable(text: str) -> str:
    r"""``text`` on one line and without a character that does something or shows nothing, each of which is spelled.

    Line feeds, escape sequences of terminals, marks that turn the direction of writing and what file names have that is
    no text come as ``\n``, ``\x1b``, ``\u202e`` and ``\udcff``.
    """
    return text if text.isprintable() else "".join(map(_spelled, text))


def printable_line(text: str) -> str:
    """The same, cut off where it is too long to be read."""
    shown = printable(text)
    left = len(shown) - MAX_LINE
    return shown if left <= 0 else f"{shown[:MAX_LINE]}... and {left} characters more"


def word(path: object) -> str:
    """A path as a word of a command that is to be copied into a shell: between quotes where it has blanks."""
    return shlex.quote(str(path))


def _spelled(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
