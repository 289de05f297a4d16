"""What is there: files, their digests, and the folder for those that gfl_edge can get or make again."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from pathlib import Path

CACHE_VARIABLE = "GFL_EDGE_CACHE"


def is_file(path: str | Path) -> bool:
    """Whether a file is there; False, too, for what can be no path, for which ``Path.is_file`` may raise."""
    return os.path.isfile(path)  # noqa: PTH113


def read_regular(path: str | Path, max_bytes: int | None = None) -> bytes:
    """The content of a file, of which devices and pipes have none: some never end, others wait for a writer.

    Args:
        path: the file.
        max_bytes: that it may have; None: any number.

    Raises:
        OSError: as ``Path.read_bytes``, it is no regular file, or it is larger.
        ValueError: ``path`` can be no path.
    """
    with open(path, "rb", opener=_without_waiting) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is a device or a pipe, expected a file", str(path))
        if max_bytes is not None and found.st_size > max_bytes:
            raise OSError(errno.EFBIG, f"it is larger than the {max_bytes} bytes that such a file may have", str(path))
        return file.read()  # not read(max_bytes), which makes room for so many before it looks


def _without_waiting(path: str, flags: int) -> int:
    """Open it also where it is a pipe that nobody writes to."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def size_bytes(path: str | Path) -> int:
    """Of a file; 0 where there is none."""
    return Path(path).stat().st_size if is_file(path) else 0


def sha256(path: str | Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def cache_folder() -> Path | None:
    """Where compiled kernels and downloaded weights go.

    ``GFL_EDGE_CACHE``, else ``gfl_edge`` in ``XDG_CACHE_HOME`` or ``~/.cache``; None for a user without a home.
    """
    if named := os.environ.get(CACHE_VARIABLE):
        return Path(named)
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "gfl_edge"
    try:
        return Path.home() / ".cache" / "gfl_edge"
    except RuntimeError:
        return None
