"""What compiling for a GPU gave, kept on disk for the next start."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

from gfl_edge.errors import OutputError
from gfl_edge.files import CACHE_VARIABLE, write_atomically

_LOG = logging.getLogger(__name__)

_DIGEST_BYTES = 32  # of SHA-256, before what it was made from


def read_kept(path: Path) -> bytes | None:
    """What :func:`keep` wrote; None where there is nothing, or not all of it."""
    try:
        content = path.read_bytes()
    except OSError as error:
        if not isinstance(error, FileNotFoundError):
            _LOG.warning("cannot read the kernel cache %s (%s), compiling again", path, error)
        return None
    digest, image = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    if hashlib.sha256(image).digest() != digest:
        _LOG.warning("%s in the kernel cache is damaged, compiling again", path)
        return None
    return image


def keep(path: Path, image: bytes) -> None:
    """Write ``image``; where that is not possible, a warning says what it costs."""
    try:
        write_atomically(path, hashlib.sha256(image).digest() + image, durable=False)
    except OutputError as error:
        _LOG.warning(
            "every start compiles again. Set %s to a folder of yours: the kernel cache %s", CACHE_VARIABLE, error
        )
