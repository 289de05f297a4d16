"""The images of a run, listed once into a file and cut into chunks, of which each becomes a part of the result."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from gfl_edge.batch.source import Entry
from gfl_edge.files import whole_file
from gfl_edge.parsing.json_text import json_text

KEY_DIGITS = 24  # of a SHA-256


@dataclass(frozen=True)
class Chunk:
    """Images that are detected in together and written together.

    Attributes:
        index: from 0, in the order of the images.
        count: of its images.
        key: a digest of all that its part depends on: the settings of the run, names and states of its images.
        start_byte: where its lines start in the listing.
    """

    index: int
    count: int
    key: str
    start_byte: int


@dataclass(frozen=True)
class Listing:
    """A file of names, a JSON text in each line, as names may hold line feeds and bytes that are no UTF-8.

    Attributes:
        path: of the file.
        chunks: in order.
    """

    path: Path
    chunks: tuple[Chunk, ...]

    @property
    def count(self) -> int:
        """Of all images."""
        return sum(chunk.count for chunk in self.chunks)

    def names(self, chunk: Chunk) -> list[str]:
        """Of its images."""
        with self.path.open("rb") as file:
            file.seek(chunk.start_byte)
            return [json.loads(file.readline()) for _ in range(chunk.count)]


def write_listing(path: Path, entries: Iterable[Entry], size: int, settings: str) -> Listing:
    """List ``entries`` into a file, ``size`` of them a chunk; only the chunks' digests are held in memory.

    Args:
        path: of the file.
        entries: in order.
        size: images of a chunk; the last may have fewer.
        settings: what results depend on beside the images.

    Raises:
        OutputError: the disk is full.
        SourceError: of ``entries``.
    """
    entries, chunks = iter(entries), list[Chunk]()
    with whole_file(path, durable=False) as temporary, temporary.open("wb") as file:
        while some := list(itertools.islice(entries, size)):
            digest, start_byte = hashlib.sha256(settings.encode()), file.tell()
            for entry in some:
                digest.update(f"{json_text(entry)}\n".encode())
                file.write(f"{json_text(entry.name)}\n".encode())
            chunks.append(Chunk(len(chunks), len(some), digest.hexdigest()[:KEY_DIGITS], start_byte))
    return Listing(path, tuple(chunks))
