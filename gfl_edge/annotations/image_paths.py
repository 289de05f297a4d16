"""Where the images lie that annotation files name, often as they lay on another machine."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path


def find_image(folder: Path, name: str) -> Path:
    """The file of an image: ``name`` as it stands below ``folder``, if it is there.

    Else ``name`` with back slashes for separators, without leading folders that ``folder`` ends in
    (``images/a.jpg`` in ``data/images``); and of an absolute name, such as ``C:\\data\\sub\\a.jpg``, the longest end
    that is below ``folder`` (``sub/a.jpg``, then ``a.jpg``). Where none exists, the first of these.
    """
    first = folder / name
    if is_file(first):
        return first
    others = list(_candidates(folder, name))
    return next((path for path in others if is_file(path)), others[0] if others else first)


def is_file(path: Path) -> bool:
    """Whether a file is there; False also for names that no file can have, which ``Path.is_file`` may raise for."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _candidates(folder: Path, name: str) -> Iterator[Path]:
    parts = [part for part in re.split(r"[\\/]+", name) if part not in ("", ".")]
    if re.match(r"[\\/]|[A-Za-z]:", name):
        for start in range(len(parts)):
            yield folder.joinpath(*parts[start:])
        return
    yield folder.joinpath(*parts)
    ends = folder.absolute().parts
    for count in range(min(len(parts), len(ends) + 1) - 1, 0, -1):
        if tuple(parts[:count]) == ends[-count:]:
            yield folder.joinpath(*parts[count:])
