"""In place of the processes that run GStreamer pipelines."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from gfl_edge.errors import OutputError
from gfl_edge.media import streams


class Pipelines:
    """In place of processes: what happens to each, by its number, and the images that they took."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened: list[tuple[str, float, tuple[int, int]]] = []
        self.taken: list[list[int]] = []
        self.finished: list[int] = []
        self.on_open: Callable[[int], None] = lambda number: None
        self.on_write: Callable[[int, int], None] = lambda number, count: None
        self.on_finish: Callable[[int], None] = lambda number: None
        monkeypatch.setattr(streams, "PipelineProcess", lambda finish_seconds: Pipeline(self))


class Pipeline:
    def __init__(self, owner: Pipelines) -> None:
        self.owner, self.number = owner, len(owner.taken)
        owner.taken.append([])

    def start(self, pipeline: str, fps: float, size_hw: tuple[int, int]) -> None:
        self.owner.opened.append((pipeline, fps, size_hw))
        self.owner.on_open(self.number)

    def write(self, frame: np.ndarray) -> None:
        assert frame.flags.c_contiguous
        assert frame.shape == (*self.owner.opened[-1][2], 3)
        self.owner.on_write(self.number, len(self.owner.taken[self.number]))
        self.owner.taken[self.number].append(int(frame[0, 0, 0]))

    def finish(self) -> None:
        self.owner.on_finish(self.number)
        self.owner.finished.append(self.number)

    def kill(self) -> None:
        pass


def fail(error: OutputError) -> None:
    raise error
