"""Writing files so that readers see the old one or the whole new one, and finding out early that it cannot be done."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

from gfl_edge.errors import OutputError
from gfl_edge.files.partial import FULL, PartialFile, clean

_ROOM = "Make room there, or choose another place"
ADVICE = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EFBIG: "Files there may not be that large (ulimit -f, or a FAT file system): choose another place",
    errno.EROFS: "Choose a folder that can be written",
    errno.EACCES: "Choose a folder that you may write to",
    errno.EPERM: "Choose a folder that you may write to",
    errno.ENAMETOOLONG: "Choose a shorter name",
}


def cannot_write(path: object, error: Exception, needed_bytes: int = 0) -> OutputError:
    """The error that says that ``path`` cannot be written, and what to do.

    Args:
        path: one, or a text that names several.
        error: why; of an OSError its own words, without another path.
        needed_bytes: how many were to be written, as far as that is known.
    """
    number, words = (error.errno, error.strerror) if isinstance(error, OSError) else (None, None)
    advice = ADVICE.get(number or 0, "Choose another place")
    needed = f", about {max(1, round(needed_bytes / 1e6))} MB are needed" if needed_bytes and number in FULL else ""
    return OutputError(f"{path} cannot be written ({words or error}{needed}). {advice}")


@contextmanager
def whole_file(path: str | Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary name beside ``path`` that becomes ``path`` if the block succeeds and vanishes if it fails.

    A link stays, and what it leads to is written.

    The temporary name, of an empty file, keeps the suffix, for writers that choose their format by it; see
    :class:`PartialFile`. Missing folders are made. A process that is killed leaves it to the next that writes into the
    folder, which removes it.

    Args:
        path: of the file.
        durable: be sure that it survives a power cut, which takes milliseconds; False for what is soon made again.

    Raises:
        OutputError: it cannot be written; an OSError in the block is taken for the reason.
    """
    with whole_files([path], durable=durable) as (temporary,):
        yield temporary


@contextmanager
def whole_files(paths: Sequence[str | Path], *, durable: bool = True) -> Iterator[list[Path]]:
    """As :func:`whole_file`, of files that belong together: all are written before the first gets its name."""
    targets = [_without_link(Path(path)) for path in paths]
    with ExitStack() as stack:
        try:
            partials = [stack.enter_context(closing(_partial(target))) for target in targets]
            yield [partial.path for partial in partials]
            if durable:
                for partial in partials:
                    partial.sync()
            for partial, target in zip(partials, targets, strict=True):
                partial.path.replace(target)
            if durable:
                _sync_folders({target.parent for target in targets})
        except OSError as error:
            raise cannot_write(", ".join(map(str, paths)), error) from error


def write_atomically(path: str | Path, content: bytes, *, durable: bool = True) -> None:
    """Write ``content`` to ``path`` so that readers see the old file or the whole new one; see :func:`whole_file`."""
    with whole_file(path, durable=durable) as temporary:
        temporary.write_bytes(content)


def write_together(contents: Mapping[Path, bytes]) -> None:
    """Write files that belong together, by their paths: all of them, or on an error none."""
    with whole_files(list(contents)) as temporaries:
        for temporary, content in zip(temporaries, contents.values(), strict=True):
            temporary.write_bytes(content)


def check_output(path: str | Path, room_bytes: int = 0) -> None:
    """Find out before an hour of work that ``path`` could not be written after it; leaves no trace.

    Args:
        path: of a file; folders that are missing would be made.
        room_bytes: how large it may become, about.

    Raises:
        OutputError: it could not be written, or the disk has no room for it.
    """
    try:
        target = _without_link(Path(path))
        _refuse_special(target)
        clean(target.parent)
        folder = next(folder for folder in target.absolute().parents if folder.exists())
        with closing(PartialFile(folder)) as probe:
            probe.reserve(room_bytes)
    except OSError as error:
        raise cannot_write(path, error, room_bytes) from error


def _partial(target: Path) -> PartialFile:
    _refuse_special(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    return PartialFile(target.parent, target.suffix)


def _without_link(path: Path) -> Path:
    """Where a link leads, whose place the file would take otherwise: that of ``/dev/stdout``, or to a larger disk."""
    return Path(os.path.realpath(path)) if os.path.islink(path) else path  # noqa: PTH114  which may raise


def _refuse_special(target: Path) -> None:
    """Raise OSError for a folder, a device or a pipe, whose place the file would take; OutputError for an address, of
    which folders would be made.
    """
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(target)):  # of :// a path keeps one
        raise OutputError(f"{target} is an address: write to a file of this machine, and copy it")
    if not target.name:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        return
    except ValueError as error:  # a NUL in the name
        raise OSError(errno.EINVAL, str(error)) from error
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(mode):
        raise OSError(errno.ENODEV, "a device or pipe, not a file")


def _sync_folders(folders: set[Path]) -> None:
    """Have the names on the disk, too, where folders can be synchronized."""
    for folder in folders:
        with suppress(OSError):
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
