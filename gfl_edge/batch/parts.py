"""The folder beside the result in which its parts are kept until all are there, and their joining."""

from __future__ import annotations

import io
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from gfl_edge import optional
from gfl_edge.batch.listing import Chunk
from gfl_edge.batch.rows import COMPRESSION, Counts, read_counts, schema
from gfl_edge.errors import OutputError
from gfl_edge.files import cannot_write, check_output, whole_file, write_atomically
from gfl_edge.files.partial import try_lock
from gfl_edge.parsing.json_text import json_text

ROW_GROUP = 10_000  # rows of the result that are in memory at a time, at least
LISTING = "listing.jsonl"
logger = logging.getLogger(__name__)

_PART = re.compile(r"part-[0-9]{8}-[0-9a-f]+\.parquet")


class Parts:
    """The parts of a result: a file for each chunk of images, which has its name when it is whole.

    Of a run that was stopped, however that was, its parts are what the next one goes on with; each is named by its
    number and by the digest of all that it depends on. Usable as a context manager, which lets go of the folder.

    Args:
        output: the file of the result.

    Attributes:
        folder: of the parts, ``output`` with ``.parts`` at its end.

    Raises:
        OutputError: the result or its parts could not be written, or another run writes them.
    """

    def __init__(self, output: Path) -> None:
        self.output, self.folder = output, output.with_name(f"{output.name}.parts")
        check_output(output)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(self.folder, error) from error
        self._lock = -1
        with suppress(OSError):  # there are no locks here
            self._lock = os.open(self.folder, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
            if not try_lock(self._lock):
                self.close()
                raise OutputError(f"{output} is being written by another run: wait for it, or choose another name")

    @property
    def listing(self) -> Path:
        """Where the images of the run are listed."""
        return self.folder / LISTING

    def path(self, chunk: Chunk) -> Path:
        """Of the part of a chunk."""
        return self.folder / f"part-{chunk.index:08d}-{chunk.key}.parquet"

    def finished(self, chunks: Iterable[Chunk]) -> dict[int, Counts]:
        """What is in the parts that are there, by their number.

        Those of other images, another model or other options stay, for whoever gave a wrong option, until the result
        is written.
        """
        by_name = {self.path(chunk).name: chunk for chunk in chunks}
        names = {name for name in os.listdir(self.folder) if _PART.fullmatch(name)}  # noqa: PTH208  names only
        if others := len(names - by_name.keys()):
            logger.info("%d parts in %s are of other images, another model or other options", others, self.folder)
        found = {}
        for name in names & by_name.keys():
            with (self.folder / name).open("rb") as file:
                counts = read_counts(file)
            if counts is not None and counts.images == by_name[name].count:
                found[by_name[name].index] = counts
        return found

    def add(self, chunk: Chunk, part: bytes) -> Counts:
        """Write the part of a chunk; what is in it.

        Raises:
            OutputError: the disk is full.
        """
        counts = read_counts(io.BytesIO(part))
        assert counts is not None
        assert counts.images == chunk.count
        write_atomically(self.path(chunk), part)
        return counts

    def join(self, chunks: Iterable[Chunk], with_sigma: bool, metadata: Mapping[str, Any]) -> None:
        """Write the result of all parts, in order, and its metadata, each value as JSON; only some rows are in memory.

        Raises:
            OutputError: the disk is full.
        """
        parquet = optional.load("pyarrow.parquet")
        columns = schema(with_sigma).with_metadata(
            {name: value if isinstance(value, str) else json_text(value) for name, value in metadata.items()}
        )
        with (
            whole_file(self.output) as temporary,
            temporary.open("wb") as file,  # pyarrow takes some names for addresses
            parquet.ParquetWriter(file, columns, compression=COMPRESSION) as writer,
        ):
            for table in self._row_groups(chunks):
                writer.write_table(table.replace_schema_metadata(columns.metadata), row_group_size=len(table))

    def _row_groups(self, chunks: Iterable[Chunk]) -> Iterator[Any]:
        arrow, parquet = optional.load("pyarrow"), optional.load("pyarrow.parquet")
        tables: list[Any] = []
        for chunk in chunks:
            try:
                with self.path(chunk).open("rb") as file:
                    table = parquet.ParquetFile(file, page_checksum_verification=True).read()
            except (arrow.ArrowException, OSError) as error:
                self.path(chunk).unlink(missing_ok=True)
                raise OutputError(
                    f"{self.path(chunk)} was damaged, and is removed ({error}): give the same command again, which "
                    "makes only this part anew"
                ) from error
            tables.append(table.replace_schema_metadata(None))
            if sum(map(len, tables)) >= ROW_GROUP:
                yield arrow.concat_tables(tables)
                tables = []
        if tables:
            yield arrow.concat_tables(tables)

    def remove(self) -> None:
        """The result is written: nothing is left to go on with. What others put into the folder stays."""
        for name in os.listdir(self.folder):  # noqa: PTH208  names only
            if _PART.fullmatch(name) or name == LISTING:
                (self.folder / name).unlink(missing_ok=True)
        self.close()
        with suppress(OSError):
            self.folder.rmdir()

    def close(self) -> None:
        """Let go of the folder."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Parts:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with suppress(OSError):  # it was removed, or is not ours to list
            if not any(map(_PART.fullmatch, os.listdir(self.folder))):  # noqa: PTH208  names only
                self.remove()  # nothing to go on with
            elif kind is not None:
                logger.info("finished parts are kept in %s: the same command goes on with them", self.folder)
        self.close()
