"""How often identities switch on clips of made-up objects, with sigmas of their edges and without; the cost."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.tracking.clip import ClipFrame, clip
from gfl_edge.errors import InputError
from gfl_edge.tracking.tracker import ObjectTracker

SEEDS, FRAMES, OBJECTS = range(6), 300, 20
NOISES = (0.04, 0.08)  # of an edge, as shares of the object's side
PACKAGE = "norfair-enough"


@dataclass
class Counts:
    """What became of the identities of clips.

    Attributes:
        objects: there were.
        identities: that were given to them.
        switches: how often an object had another identity than the one before.
        detections: of objects.
        followed: those of them that had an identity.
        strangers: boxes of nobody that had an identity.
        milliseconds: a frame.
    """

    objects: int = 0
    identities: int = 0
    switches: int = 0
    detections: int = 0
    followed: int = 0
    strangers: int = 0
    milliseconds: list[float] = field(default_factory=list)


def follow(frames: Iterable[ClipFrame], counts: Counts, sigmas: bool) -> None:
    """Follow the objects of a clip, and count."""
    tracker, last, given = ObjectTracker(), dict[int, int](), set[int]()
    for frame in frames:
        found = frame.found if sigmas else replace(frame.found, edge_sigma=None)
        start = time.perf_counter()
        tracks = tracker.update(found).track_ids
        counts.milliseconds.append(1000 * (time.perf_counter() - start))
        assert tracks is not None
        for owner, track in zip(frame.owners.tolist(), tracks.tolist(), strict=True):
            counts.detections += owner >= 0
            if track < 0:
                continue
            if owner < 0:
                counts.strangers += 1
                continue
            counts.followed += 1
            counts.switches += last.get(owner, track) != track
            last[owner] = track
            given.add(track)
    counts.objects += len(last)
    counts.identities += len(given)


def short_tracks() -> Iterator[list[int]]:
    """The identities in each frame of a short clip, without and with sigmas."""
    for sigmas in (False, True):
        tracker = ObjectTracker()
        for frame in clip(0, 60, 8, NOISES[0]):
            tracks = tracker.update(frame.found if sigmas else replace(frame.found, edge_sigma=None)).track_ids
            yield [] if tracks is None else tracks.tolist()


def measure(_: Path, only: str | None = None) -> dict[str, Any]:
    """Each noise with and without sigmas, over all clips.

    Args:
        only: "counts": times are not taken, as on a machine that has other work.

    Raises:
        InputError: it is something else.
    """
    if only not in (None, "counts"):
        raise InputError(f"--only {only}: expected counts")
    rows = []
    for noise in NOISES:
        for sigmas in (False, True):
            counts = Counts()
            for seed in SEEDS:
                follow(clip(seed, FRAMES, OBJECTS, noise), counts, sigmas)
            rows.append(_row(noise, sigmas, counts, times=only is None))
    return {
        "clips": len(SEEDS),
        "frames": FRAMES,
        "objects": OBJECTS,
        "library": f"{PACKAGE} {metadata.version(PACKAGE)}",
        "rows": rows,
    }


def _row(noise: float, sigmas: bool, counts: Counts, times: bool) -> dict[str, Any]:
    return {
        "noise": noise,
        "edge_sigma": sigmas,
        "objects": counts.objects,
        "identities": counts.identities,
        "switches": counts.switches,
        "detections": counts.detections,
        "followed": counts.followed,
        "strangers": counts.strangers,
        "median_ms": round(float(np.median(counts.milliseconds)), 3) if times else None,
        "p99_ms": round(float(np.percentile(counts.milliseconds, 99)), 3) if times else None,
    }
