"""In place of cameras and files: sources of the tests' own, opened by name, and what OpenCV opens."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import cv2
import numpy as np

from gfl_edge.camera import feeds
from gfl_edge.media.sources import Frame, FrameSource

if TYPE_CHECKING:  # gstreamer_real.py runs where there is no pytest
    import pytest


class FakeSource(FrameSource):
    """Gray frames of level ``index % 256``.

    Args:
        name: of the source.
        count: frames; None: without end.
        live: whether they come when they come.
        period_s: seconds from one frame to the next.
        error: raised after the last frame.
        hangs: after the last frame it hangs until this is set.
        hw: size of the frames.

    Attributes:
        read: frames so far.
        closed: how often it was closed, and by which thread.
    """

    def __init__(
        self,
        name: str = "fake",
        count: int | None = 10,
        *,
        live: bool = False,
        period_s: float = 0.0,
        error: BaseException | None = None,
        hangs: threading.Event | None = None,
        hw: tuple[int, int] = (48, 64),
    ) -> None:
        super().__init__(name, live=live, fps=20.0, total=None if live else count)
        self.count, self.period_s, self.error, self.hangs, self.hw = count, period_s, error, hangs, hw
        self.read = 0
        self.closed: list[str] = []

    def __iter__(self) -> Iterator[Frame]:
        for index in itertools.count() if self.count is None else range(self.count):
            if self.period_s:
                time.sleep(self.period_s)
            self.read += 1
            yield Frame(index, str(index), index / 20, np.full((*self.hw, 3), index % 256, np.uint8))
        if self.hangs is not None:
            self.hangs.wait()
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        self.closed.append(threading.current_thread().name)


class Sources:
    """What there is to open, by name; errors are raised instead, and what is in ``opening`` opens when that is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.known: dict[str, FrameSource | Exception] = {}
        self.opening: dict[str, threading.Event] = {}
        monkeypatch.setattr(feeds, "open_source", self._open)

    def add(self, *sources: FakeSource) -> list[str]:
        self.known.update({source.name: source for source in sources})
        return [source.name for source in sources]

    def _open(self, name: object, *, reconnect_seconds: float, stopped: threading.Event) -> FrameSource:
        if str(name) in self.opening:
            assert self.opening[str(name)].wait(20)
        found = self.known[str(name)]
        if isinstance(found, Exception):
            raise found
        return found


class Clock:
    """Stands in for the time module: sleeping takes no time, but moves the clock."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.sleeps: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return 1.7e9 + self.now

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now += seconds


class Cameras:
    """Stands in for cv2.VideoCapture: the i-th opening gives ``lengths[i]`` frames, and those beyond fail to open.

    Before each frame ``damaged`` ones cannot be decoded.
    """

    def __init__(self, lengths: list[int], fps: float = 15.0, declared_frames: float = -1.0, damaged: int = 0) -> None:
        self.lengths, self.fps, self.declared_frames, self.damaged = lengths, fps, declared_frames, damaged
        self.openings: list[tuple[object, ...]] = []
        self.held = 0

    def __call__(self, *opening: object) -> Camera:
        self.openings.append(opening)
        index = len(self.openings) - 1
        return Camera(self, self.lengths[index] if index < len(self.lengths) else 0)


class Camera:
    def __init__(self, owner: Cameras, frames: int) -> None:
        self.owner, self.left, self.opened, self.damaged = owner, frames, frames > 0, owner.damaged
        assert not owner.held, "a camera that is still held cannot be opened again"
        owner.held += self.opened

    def isOpened(self) -> bool:  # noqa: N802
        return self.opened

    def read(self) -> tuple[bool, np.ndarray | None]:
        if not self.left:
            return False, None
        if self.damaged:
            self.damaged -= 1
            return False, None
        self.left, self.damaged = self.left - 1, self.owner.damaged
        return True, np.full((48, 64, 3), self.left, np.uint8)

    def get(self, prop: int) -> float:
        known = {cv2.CAP_PROP_FPS: self.owner.fps, cv2.CAP_PROP_FRAME_COUNT: self.owner.declared_frames}
        return known.get(prop, 0.0)

    def release(self) -> None:
        self.owner.held -= self.opened
        self.opened = False


def plug_in(monkeypatch: pytest.MonkeyPatch, cameras: Cameras) -> Cameras:
    """Let OpenCV open ``cameras``."""
    monkeypatch.setattr(cv2, "VideoCapture", cameras)
    return cameras
