"""Lists of images as the tools write them, and where the images lie that they name as on another machine."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from gfl_edge.annotations.text import read_lines
from gfl_edge.errors import AnnotationError

logger = logging.getLogger(__name__)

# Of an entry: its path relative to the image folder; None where it leads outside
Reading = Callable[[str], str | None]


@dataclass(frozen=True)
class Entry:
    """A line of a list: what it says and its number from 1; or, as ``kind`` says, an image of a COCO file, from 0."""

    text: str
    line: int
    kind: str = "line"

    def __str__(self) -> str:
        return f"{self.text} ({self.kind} {self.line})"


def read_image_list(path: str | Path) -> list[Entry]:
    """The lines of a list of images that are not empty.

    Raises:
        AnnotationError: the file cannot be read, or is empty.
    """
    lines = enumerate(read_lines(path, AnnotationError), 1)
    entries = [Entry(text, line) for line, text in lines if text]
    if not entries:
        raise AnnotationError(f"{path} lists no images")
    return entries


def locate(
    entries: Sequence[Entry],
    image_list: Path,
    folder: Path,
    is_there: Callable[[str], bool],
    *,
    elsewhere: bool = True,
) -> tuple[list[str], int]:
    """What the entries of a list mean in the image folder.

    An absolute path of a file that exists is taken as it is, where files may lie ``elsewhere``. All others are read in
    the same way from the first to the last, by which most of them are there: relative to the folder; relative to the
    list; after the part that names the folder, as in ``data/obj_train_data/1.jpg`` for a folder ``obj_train_data``; or
    without the folders that all of them start with. So no entry takes the place of another, and what is missing stays
    missing.

    Args:
        entries: of the list.
        image_list: the file that lists them.
        folder: of the images.
        is_there: whether there is what a path relative to the folder names.
        elsewhere: whether absolute paths may lead out of the folder, as in lists that people write of their own images;
            not in files that come from others. Links in the folder are followed in any case, as people make folders of
            links.

    Returns:
        For each entry its path, with ``/``, relative to the folder, or absolute where it lies elsewhere; and how many
        are there.

    Raises:
        AnnotationError: a path that leads out of the folder.
    """
    absolute = {entry.line: found for entry in entries if (found := _absolute(entry.text, folder, elsewhere))}
    count = sum(name.startswith("/") or is_there(name) for name in absolute.values())
    others = [entry.text for entry in entries if entry.line not in absolute]
    readings = _readings(others, image_list, folder, is_there)
    counts = []
    for _, reading in readings:
        names = [reading(text) for text in others]
        counts.append(sum(name is not None and is_there(name) for name in names))
        if counts[-1] == len(others):
            break
    best = counts.index(max(counts))
    words, reading = readings[best]
    if words and counts[best]:
        logger.warning("%s: %d paths are read %s, in %s", image_list, len(others), words, folder)
    located: list[str] = []
    for entry in entries:
        name = absolute.get(entry.line) or reading(entry.text)
        if name is None and _is_rooted(entry.text) and (elsewhere or not os.path.lexists(entry.text)):
            name = entry.text  # not there, which the checks will report
        if name is None:
            raise AnnotationError(
                f"{image_list}, {entry.kind} {entry.line}: {entry.text!r} leads out of {folder}. Expected a path "
                "relative to that folder or to the list"
            )
        located.append(name)
    return located, count + counts[best]


def _absolute(text: str, folder: Path, elsewhere: bool) -> str | None:
    """What an absolute path means here: relative to the folder if it leads into it, else itself if a file may be there
    and is.
    """
    path = Path(text)
    if not path.is_absolute():
        return None
    is_file = elsewhere and os.path.isfile(text)  # noqa: PTH113  no error for what is no path
    return _inside(path, folder) or (path.as_posix() if is_file else None)


def _inside(path: Path, folder: Path) -> str | None:
    """``path`` relative to the folder; None if it lies outside. Links are followed only where that is needed."""
    for normal in (os.path.normpath, os.path.realpath):
        try:
            name = _joined(Path(os.path.relpath(normal(path.absolute()), normal(folder.absolute()))).parts)
        except ValueError:  # with a zero byte or half a character it can be no path
            return None
        if name is not None:
            return name
    return None


def _readings(
    texts: Sequence[str], image_list: Path, folder: Path, is_there: Callable[[str], bool]
) -> list[tuple[str, Reading]]:
    """Ways to read paths, by falling trust, each with the words to warn by; none for the first two."""
    own_parts = _parts(str(folder.absolute()))
    levels = zip(*(_parts(text)[:-1] for text in texts), strict=False)
    shared = [level[0] for level in takewhile(lambda level: len(set(level)) == 1, levels)]

    def as_written(text: str) -> str | None:
        if _is_rooted(text):
            return None
        if "\\" in text and is_there(text):  # on Linux a letter as any other
            return text
        return _joined(_parts(text))

    def from_the_list(text: str) -> str | None:
        return None if _is_rooted(text) else _inside(image_list.parent.joinpath(*_parts(text)), folder)

    def after_the_folder(text: str) -> str | None:
        return _after(_parts(text), own_parts)

    def without(count: int) -> Reading:
        return lambda text: _joined(_parts(text)[count:])

    return [
        ("", as_written),
        ("", from_the_list),
        (f"from the folder {folder.name!r} on", after_the_folder),
        *((f"without {'/'.join(shared[:n])!r}", without(n)) for n in range(1, len(shared) + 1)),
    ]


def _parts(text: str) -> list[str]:
    """The parts of a path as it is written on any system, without a drive."""
    path = re.sub(r"^[A-Za-z]:(?=[\\/])", "", text).replace("\\", "/")
    return [part for part in path.split("/") if part not in ("", ".")]


def _is_rooted(text: str) -> bool:
    return re.match(r"([A-Za-z]:)?[\\/]", text) is not None


def _joined(parts: Sequence[str]) -> str | None:
    """A path of these parts; None if it leads outside or nowhere."""
    name = Path(os.path.normpath("/".join(parts))).as_posix()
    return None if name.split("/")[0] in (os.pardir, ".", "") else name


def _after(parts: Sequence[str], folder: Sequence[str]) -> str | None:
    """What follows the end of the folder's own path, the longest that there is."""
    for length in range(len(folder), 0, -1):
        tail = list(folder[-length:])
        for start in range(len(parts) - length - 1, -1, -1):
            if list(parts[start : start + length]) == tail:
                return _joined(parts[start + length :])
    return None
