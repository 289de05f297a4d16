"""Files of a folder and its sub-folders, found by name."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from gfl_edge.annotations.image_list import Entry
from gfl_edge.media.images import IMAGE_SUFFIXES, image_files


class FoundFiles:
    """The files under a folder; each sub-folder is listed once, when it is first asked for.

    Names that differ only in Unicode's normal form are the same, as macOS writes them apart ("é" as "e" and an accent)
    and others do not; where both forms are there, each is found by its own.

    Args:
        root: the folder; one that does not exist has no files.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._folders: dict[str, dict[str, list[str]]] = {}
        self._stems: dict[str, dict[str, list[str]]] = {}

    def find(self, name: str) -> Path | None:
        """The file that ``name``, a path with ``/`` relative to the root, means; None if there is none."""
        folder, _, last = name.rpartition("/")
        names = self._listed(folder).get(_same(last), ())
        if not names:
            return None
        parent = self._folder(folder)
        return None if parent is None else parent / (last if last in names else names[0])

    def images(self, name: str) -> list[Path]:
        """The images with the path ``name``, where that has an image's suffix, else those with any such suffix."""
        exact = self.find(name) if is_image_name(name) else None
        if exact is not None:
            return [exact]
        folder, _, last = name.rpartition("/")
        if folder not in self._stems:
            stems = self._stems.setdefault(folder, {})
            for found in chain.from_iterable(self._listed(folder).values()):
                if is_image_name(found):
                    stems.setdefault(_same(without_suffix(found)), []).append(found)
        named = self._stems[folder].get(_same(last), [])
        exact_names = [found for found in named if without_suffix(found) == last]
        parent = self._folder(folder)
        return [] if parent is None else [parent / found for found in sorted(exact_names or named)]

    def all_images(self) -> tuple[Sequence[Entry], list[str]]:
        """What lies directly in the root, as entries of a list would say it, and their names.

        Raises:
            SourceError: there is no such folder, or it holds no images.
        """
        names = [path.name for path in image_files(self.root)]
        return [Entry(name, 0) for name in names], names

    def _folder(self, name: str) -> Path | None:
        """A sub-folder by its path; the root by the empty one."""
        found, done = self.root, ""
        for part in name.split("/") if name else ():
            names = self._listed(done).get(_same(part), ())
            if not names:
                return None
            found /= part if part in names else names[0]
            done = f"{done}/{part}" if done else part
        return found

    def _listed(self, name: str) -> dict[str, list[str]]:
        """What is directly in a sub-folder, under the names in one normal form."""
        if name not in self._folders:
            path, found = self._folder(name), self._folders.setdefault(name, {})
            for entry in os.listdir(path) if path is not None and path.is_dir() else ():  # noqa: PTH208  names only
                found.setdefault(_same(entry), []).append(entry)
        return self._folders[name]


def is_image_name(name: str) -> bool:
    """Whether a name ends in the suffix of an image, in upper or lower case."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def without_suffix(name: str) -> str:
    """A name without an image's suffix; other dots belong to the name."""
    return name[: name.rindex(".")] if is_image_name(name) else name


def _same(name: str) -> str:
    return unicodedata.normalize("NFC", name)
