"""Disks that are full or cannot be written: one sentence, and what was there before is there afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.faults.case import Case
from benchmarks.faults.process import disk_of, run
from gfl_edge.media.images import write_image

OLD = b"what was there before"
ROOM_BYTES = 4096


def cases() -> Iterator[Case]:
    """See the module."""
    yield Case(f"room for {ROOM_BYTES} bytes", "detect, disk full", partial(_detect, room=ROOM_BYTES))


def _detect(folder: Path, room: int) -> None:
    image = np.random.default_rng(0).integers(0, 255, (240, 320, 3), np.uint8)
    write_image(folder / "noise.png", image)
    target = folder / "detections" / "noise.png"
    target.parent.mkdir()
    target.write_bytes(OLD)
    run(["gfl-edge", "detect", folder / "noise.png"], folder, disk_of(room)).check_one_sentence()
    assert target.read_bytes() == OLD
    assert [path.name for path in target.parent.iterdir()] == ["noise.png"]
