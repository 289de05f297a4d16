"""What a fuzz driver is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random


@dataclass(frozen=True)
class Reader:
    """A public reader of files, and what its inputs are made from.

    Attributes:
        name: unique, "coco"; as in ``python -m tests.fuzz --reader coco``.
        read: calls the reader as users reach it. The path is always the same; a driver may keep files beside it. It
            returns a value or raises a GflEdgeError; all else is a failure.
        seeds: good files of at most 10 KB each, or what makes them, called once in the child; ``read`` takes the first.
        suffix: of the file's name.
        mutate: changes a seed as only this format allows; three of four inputs come from it.
    """

    name: str
    read: Callable[[Path], object]
    seeds: Sequence[bytes | Path] | Callable[[], Sequence[bytes | Path]]
    suffix: str = ""
    mutate: Callable[[Random, bytes], bytes] | None = None

    def seed_contents(self) -> list[bytes]:
        """The content of every seed."""
        seeds = self.seeds() if callable(self.seeds) else self.seeds
        return [seed if isinstance(seed, bytes) else seed.read_bytes() for seed in seeds]
