"""Files on their way, under temporary names: which are somebody's, and which were left by a process that was killed.

A partial file belongs to whoever holds its lock (``flock``), which ends with the process however that ends, and holds
between containers that share a volume, where process numbers say nothing. Its name is a random one, made exclusively.
Where there are no locks (Windows, some network file systems), nothing that was left can be told from what is being
written, and all of it stays.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
import sys
from contextlib import suppress
from pathlib import Path

if sys.platform != "win32":
    import fcntl

MAX_RESERVED_BYTES = 16 << 20  # where it is not supported, the C library writes every block of them
MAX_SUFFIX = 16  # bytes of a suffix that is kept; longer ones say nothing about a format
NAME = re.compile(rf"\.gfl_edge-[0-9a-f]{{16}}\.partial(\.[^.]{{1,{MAX_SUFFIX}}})?")

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)  # the disk, a quota, a limit of the size; a disk that fails

_CLOSED_IN_CHILDREN = getattr(os, "O_CLOEXEC", 0)
_looked_at: set[str] = set()  # folders: a listing a process, however many files it writes there


class PartialFile:
    """A new, empty file in ``folder``, which is this process's until :meth:`close`.

    Whoever writes it by its name may truncate it, but must not put another file in its place.

    Args:
        folder: where it lies; it is there.
        suffix: of its name, as some writers choose their format by it.

    Attributes:
        path: of the file.

    Raises:
        OSError: it cannot be made there.
    """

    def __init__(self, folder: Path, suffix: str = "") -> None:
        clean(folder)
        suffix = suffix if len(os.fsencode(suffix)) <= MAX_SUFFIX else ""
        while True:
            self.path = folder / f".gfl_edge-{secrets.token_hex(8)}.partial{suffix}"
            try:
                self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _CLOSED_IN_CHILDREN, 0o666)
            except FileExistsError:
                continue
            if self._is_ours():
                break
            os.close(self._descriptor)
        if sys.platform == "win32":  # where an open file cannot be renamed
            os.close(self._descriptor)
            self._descriptor = -1

    def _is_ours(self) -> bool:
        """Take the lock; False if somebody who was cleaning up took it, and perhaps the file, before."""
        try:
            return try_lock(self._descriptor) and os.fstat(self._descriptor).st_nlink > 0
        except OSError:  # no locks here
            return True

    def reserve(self, room_bytes: int) -> None:
        """Raise OSError where the disk has no room for so many bytes, or a quota or limit for the first of them."""
        if sys.platform == "win32":
            return
        free = free_bytes(self.path)
        if free is not None and free < room_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.write(self._descriptor, b"\0")
        try:
            os.posix_fallocate(self._descriptor, 0, min(max(1, room_bytes), MAX_RESERVED_BYTES))
        except (OSError, AttributeError) as error:  # most file systems can
            if getattr(error, "errno", None) in FULL:
                raise

    def sync(self) -> None:
        """Have the content on the disk before its name is: a power cut would leave a finished name without content."""
        if self._descriptor >= 0:
            try:
                os.fsync(self._descriptor)
            except OSError as error:
                if error.errno in FULL:  # others: this file system knows nothing of it
                    raise

    def close(self) -> None:
        """Remove the file, unless it was renamed, and let go of it."""
        with suppress(OSError):
            self.path.unlink()
        if self._descriptor >= 0:
            with suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = -1


def free_bytes(path: Path) -> int | None:
    """What the disk of ``path`` has room for, quotas aside; None where that is not said."""
    if sys.platform == "win32":
        return None
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize if found.f_blocks else None


def clean(folder: Path) -> None:
    """Remove the partial files in ``folder`` whose processes are gone; once in a process for each folder."""
    key = os.path.abspath(folder)  # noqa: PTH100  no links are followed
    if key in _looked_at or sys.platform == "win32":
        return
    _looked_at.add(key)
    with suppress(OSError):
        for name in os.listdir(folder):  # noqa: PTH208  names only
            if NAME.fullmatch(name):
                _remove_orphan(folder / name)


def _remove_orphan(path: Path) -> None:
    with suppress(OSError):  # somebody else's, gone already, or there are no locks here
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | _CLOSED_IN_CHILDREN)
        try:
            if stat.S_ISREG(os.fstat(descriptor).st_mode) and try_lock(descriptor):
                path.unlink()
        finally:
            os.close(descriptor)


def try_lock(descriptor: int) -> bool:
    """Lock an open file until it is closed; False if another process has done so.

    Raises:
        OSError: there are no locks here.
    """
    if sys.platform == "win32":
        raise OSError(errno.ENOTSUP, "no locks")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
