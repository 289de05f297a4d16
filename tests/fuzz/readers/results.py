"""The journal of a run over many images."""

from __future__ import annotations

import json
from pathlib import Path

from gfl_edge.results.journal import Journal
from tests.fuzz.reader import Reader

SETTINGS = {"model": {"name": "tiny"}, "copies": True}
HEADER = {"settings": SETTINGS}
IMAGE = {
    "source": "a.png",
    "state": [100, 1700000000000000000],
    "output": "out/a.png",
    "size_hw": [24, 32],
    "invalid": 0,
    "boxes": [[1.5, 2.0, 10.0, 12.25]],
    "scores": [0.5],
    "class_ids": [1],
    "edge_sigma": [[0.5, 1.0, 2.25, 0.0]],
}
NOTHING = {**IMAGE, "source": "b.png", "output": None, "boxes": [], "scores": [], "class_ids": [], "edge_sigma": None}


def journal(path: Path) -> object:
    """What of it is gone on with."""
    with Journal(path, SETTINGS, ("cat", "dog")) as found:
        return [(one.to_dict(), one.holds()) for one in found.finished.values()]


READERS = [
    Reader("detect-journal", journal, ["".join(f"{json.dumps(one)}\n" for one in (HEADER, IMAGE, NOTHING)).encode()]),
]
