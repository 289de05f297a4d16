"""Lists of images as `gfl-edge batch` reads them, line by line."""

from __future__ import annotations

from pathlib import Path

from gfl_edge.batch.source import find_source
from tests.fuzz.reader import Reader


def _list(path: Path) -> object:
    source = find_source(str(path))
    return [(source.location(entry.name), source.shown(entry.name), entry.state) for entry in source.entries()]


READERS = [
    Reader(
        "batch-list", _list, [b"a/1.jpg\nb.png\n", b"\xef\xbb\xbf/x/1.jpg\r\ns3://u:p@bucket/a.jpg?key=0\r\n"], ".txt"
    ),
]
