"""Where the images of a run come from: a folder, a list of images, or either of them behind an address of fsspec."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple
from urllib.parse import urlsplit

from gfl_edge import optional
from gfl_edge.annotations.text import BYTE_ORDER_MARK
from gfl_edge.batch.rows import printable_utf8
from gfl_edge.errors import InputError, MissingDependencyError, SourceError
from gfl_edge.files import is_file
from gfl_edge.media.images import IMAGE_SUFFIXES, is_image
from gfl_edge.redact import redact, shown_source
from gfl_edge.results.journal import state_of

MAX_LINE = 8192  # characters of a line of a list
MAX_DEPTH = 100  # of folders in folders
EXPECTED = (
    "expected a folder, a list of images with one path or address in a line, or an address such as s3://bucket/folder"
)


class Entry(NamedTuple):
    """An image of a source.

    Attributes:
        name: its path below a folder, with ``/``; or the line of a list.
        state: what changes when it does, such as its size and time; None where that is not known or it is not there.
    """

    name: str
    state: str | None


@dataclass(frozen=True)
class Source:
    """Images in one order, which is the same on every machine and in every run.

    Attributes:
        text: as the user gave it.
        base: what names start from: the absolute path of a folder, or an address.
        listed: the absolute path or the address of the list; None: all images below ``base``.
    """

    text: str
    base: str
    listed: str | None = None

    @property
    def is_memory(self) -> bool:
        """Whether some of it is in the memory of this process, where no other finds it."""
        return any(place is not None and re.match(r"memory:|.*::memory:", place) for place in (self.base, self.listed))

    @property
    def shown_text(self) -> str:
        """As the user gave it, without secrets."""
        return without_secrets(self.text) if is_address(self.text) else printable_utf8(self.text)

    def is_one_service(self, location: str) -> bool:
        """Whether an address is of a service that all images come from, and not of one of many web sites in a list."""
        return self.listed is None or not re.match(r"(https?|ftp)://", location)

    def location(self, name: str) -> str:
        """The path or address that the image of that name is read from."""
        if self.listed is not None and (is_address(name) or Path(name).is_absolute()):
            return name
        return _joined(self.base, name)

    def shown(self, name: str) -> str:
        """What results call the image of that name: its path as the source was given, its address without secrets."""
        name = _joined(self.text, name) if self.listed is None else name
        return without_secrets(name) if is_address(name) else name

    def entries(self) -> Iterator[Entry]:
        """All images, as they are found: no more than the names of one folder, and of those above it, are in memory.

        Of a folder first its own, sorted by name, then those of the folders in it; hidden ones are left out. Of a list
        its lines.

        Raises:
            SourceError: a folder cannot be listed, or the list cannot be read.
        """
        if self.listed is not None:
            yield from self._lines(self.listed)
        elif is_address(self.base):
            system, path = open_address(self.base)
            yield from _below_address(system, path, "")
        else:
            yield from _below(self.base, "", ())

    def _lines(self, listed: str) -> Iterator[Entry]:
        here = not is_address(listed) and not is_address(self.base)
        with closing(_opened_list(listed)) as file:
            number = 0
            while line := _line(file, listed, number := number + 1):
                if name := line.strip("\r\n").lstrip(BYTE_ORDER_MARK if number == 1 else ""):
                    yield Entry(name, _state(self.location(name)) if here and not is_address(name) else None)


def find_source(text: str, root: str | None = None) -> Source:
    """What a user means by ``text``.

    Args:
        text: a folder, a list of images, or an address of fsspec of one of these, as s3://, gs://, file:// or memory://.
        root: folder or address that relative paths in a list start from; None: the folder of the list.

    Raises:
        SourceError: it is not there, or is neither.
        InputError: ``root`` with a folder.
        MissingDependencyError: what the address needs is not installed.
    """
    local = _local(text)
    if local is None:
        system, path = open_address(text)
        try:
            is_list, is_folder = system.isfile(path), system.isdir(path)
            if re.match("https?:", text):  # where each page that has links counts as a folder
                is_folder = text.endswith("/")
        except Exception as error:  # of any library below fsspec
            raise SourceError(f"{shown_source(text)} cannot be looked at ({_words(error)})") from error
        place = text
    else:
        is_list, is_folder = is_file(local), os.path.isdir(local)  # noqa: PTH112  no error for what is no path
        place = local
    if is_folder:
        if root is not None:
            raise InputError(
                f"--root is what relative paths in a list start from, but {shown_source(text)} is a folder"
            )
        return Source(text, place)
    if not is_list or is_image(text):
        what = "is an image" if is_list else "does not exist"
        raise SourceError(f"{shown_source(text)} {what}: {EXPECTED}. For single images use: gfl-edge detect")
    return Source(text, _above(place) if root is None else (_local(root) or root), place)


def is_address(text: str) -> bool:
    """Whether it is an address of fsspec, and no path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*(://|::)", text) is not None


def open_address(address: str) -> tuple[Any, str]:
    """The file system of fsspec that an address belongs to, and the path there.

    Raises:
        SourceError: there is no such kind of address.
        MissingDependencyError: fsspec, or what it needs for that kind, is not installed.
    """
    try:
        system, path = optional.load("fsspec.core").url_to_fs(address)
    except ImportError as error:
        raise MissingDependencyError(f"{shown_source(address)} cannot be opened: {error}") from error
    except ValueError as error:
        raise SourceError(f"{shown_source(address)} cannot be opened ({_words(error)}): {EXPECTED}") from error
    return system, path


def without_secrets(address: str) -> str:
    """An address without user and password, and without parameters where one of them may be a secret."""
    kind, colon, rest = address.rpartition("://")
    host, slash, path = rest.partition("/")
    path, mark, query = path.partition("?")
    if mark and redact(f"https://a/?{query}") != f"https://a/?{query}":
        query = "***"
    return f"{kind}{colon}{host.rpartition('@')[2]}{slash}{path}{mark}{query}"


def _words(error: Exception) -> str:
    """What an error of a library says, in one line and without secrets."""
    return redact(" ".join(str(error).split())) or type(error).__name__


def _joined(base: str, name: str) -> str:
    """Below a folder or address; of addresses in others, as ``zip://folder::s3://bucket/a.zip``, below the first."""
    inner, colons, outer = base.partition("::") if is_address(base) else (base, "", "")
    if "://" not in inner:
        inner, colons, outer = base, "", ""
    return f"{inner}{'' if not inner or inner.endswith('/') else '/'}{name}{colons}{outer}"


def _above(place: str) -> str:
    """The folder or address that a path or address is in."""
    inner, colons, outer = place.partition("::") if is_address(place) else (place, "", "")
    if "://" not in inner and colons:
        inner, colons, outer = place, "", ""
    return f"{inner[: inner.rfind('/') + 1]}{colons}{outer}"


def _local(text: str) -> str | None:
    """The absolute path that a text is, or that a ``file://`` address means; None for other addresses."""
    if not is_address(text) or os.path.exists(text):  # noqa: PTH110  no error for what is no path
        return os.path.abspath(text) if text else text  # noqa: PTH100  no links are followed
    address = urlsplit(text)
    return open_address(text)[1] if address.scheme in ("file", "local") and "::" not in text else None


def _state(path: str) -> str | None:
    try:
        return "{} {}".format(*state_of(Path(path)))
    except (OSError, ValueError):
        return None


def _below(folder: str, prefix: str, above: tuple[tuple[int, int], ...]) -> Iterator[Entry]:
    """The images in a folder of this machine and in those in it; a link that leads back up is not followed."""
    _check_depth(prefix, folder)
    files, folders = [], []
    try:
        found = Path(folder).stat()
        here = (found.st_dev, found.st_ino)
        if here in above:
            return
        with os.scandir(folder) as listed:
            for entry in listed:
                if not entry.name.startswith("."):
                    if entry.is_dir():
                        folders.append(entry.name)
                    elif is_image(entry.name):
                        files.append(entry.name)
    except OSError as error:
        raise SourceError(f"{shown_source(folder)} cannot be listed ({error.strerror or error})") from error
    for name in sorted(files):
        yield Entry(prefix + name, _state(f"{folder}/{name}"))
    del files
    for name in sorted(folders):
        yield from _below(f"{folder}/{name}", f"{prefix}{name}/", (*above, here))


def _below_address(system: Any, folder: str, prefix: str) -> Iterator[Entry]:
    """As :func:`_below`, of a file system of fsspec."""
    _check_depth(prefix, folder)
    files, folders = [], []
    try:
        listed = system.ls(folder, detail=True)
    except Exception as error:  # of any library below fsspec
        raise SourceError(f"{shown_source(folder)} cannot be listed ({_words(error)})") from error
    for found in listed:
        name = str(found["name"]).rstrip("/").rpartition("/")[2]
        if name.startswith(".") or str(found["name"]).strip("/") == folder.strip("/"):
            continue
        if found["type"] == "directory":
            folders.append((name, found["name"]))
        elif is_image(name):
            marks = (found.get(key) for key in ("size", "ETag", "etag", "mtime", "LastModified", "created"))
            files.append(Entry(prefix + name, " ".join(str(mark) for mark in marks if mark is not None)))
    del listed
    yield from sorted(files)
    for name, path in sorted(folders):
        yield from _below_address(system, path, f"{prefix}{name}/")


def _check_depth(prefix: str, folder: str) -> None:
    """Refuse folders in folders without end, as servers show a link in a circle."""
    if prefix.count("/") > MAX_DEPTH:
        raise SourceError(f"{shown_source(folder)}: folders in more than {MAX_DEPTH} others are not looked into")


def _opened_list(path: str) -> IO[str]:
    try:
        if not is_address(path):
            return Path(path).open(encoding="utf-8", errors="surrogateescape", newline="\n")
        system, inside = open_address(path)
        return system.open(inside, "rt", encoding="utf-8", errors="surrogateescape", newline="\n")  # type: ignore[no-any-return]
    except MissingDependencyError:
        raise
    except Exception as error:  # of any library below fsspec
        raise SourceError(f"{shown_source(path)} cannot be read ({_words(error)})") from error


def _line(file: IO[str], path: str, number: int) -> str:
    """The next line of a list; "" at its end."""
    try:
        line = file.readline(MAX_LINE + 1)
    except Exception as error:  # of any library below fsspec
        raise SourceError(f"{shown_source(path)} cannot be read ({_words(error)})") from error
    if "\0" in line or len(line) > MAX_LINE:
        found = "a zero byte" if "\0" in line else f"more than {MAX_LINE} characters"
        raise SourceError(
            f"{shown_source(path)}, line {number}: {found}, so this is no list of images: {EXPECTED}. Images end in "
            f"{', '.join(IMAGE_SUFFIXES)}"
        )
    return line
