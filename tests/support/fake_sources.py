"""Sources of the tests' own, opened by name in place of cameras and files."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from gfl_edge.camera import feeds
from gfl_edge.media.sources import Frame, FrameSource


class FakeSource(FrameSource):
    """Grey frames of level ``index % 256``.

    Args:
        name: of the source.
        count: frames; None: without end.
        live: whether they come when they come.
        period_s: seconds from one frame to the next.
        error: raised behind the last frame.
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
    """What there is to open, by name; errors are raised instead."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.known: dict[str, FrameSource | Exception] = {}
        self.opening_s: dict[str, float] = {}
        monkeypatch.setattr(feeds, "open_source", self._open)

    def add(self, *sources: FakeSource) -> list[str]:
        self.known.update({source.name: source for source in sources})
        return [source.name for source in sources]

    def _open(self, name: object, *, reconnect_seconds: float) -> FrameSource:
        time.sleep(self.opening_s.get(str(name), 0.0))
        found = self.known[str(name)]
        if isinstance(found, Exception):
            raise found
        return found
