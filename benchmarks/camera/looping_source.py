"""A live source that plays the first frames of a video over and over."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path

from gfl_edge.media.opening import open_source
from gfl_edge.media.sources import Frame, FrameSource

DISTINCT = 50  # frames


class LoopingSource(FrameSource):
    """See the module.

    Args:
        video: whose frames it plays, the first ``DISTINCT``.
        fps: frames per second.
        count: frames to play; None = no end.
        size_hw: of their upper left corners, which it plays instead.
    """

    def __init__(
        self, video: Path, fps: float, count: int | None = None, size_hw: tuple[int, int] | None = None
    ) -> None:
        super().__init__("loop", live=True, fps=fps, total=None)
        self._count, self._period_s = count, 1 / fps
        height, width = size_hw or (None, None)
        with open_source(video) as source:
            frames = itertools.islice(source, DISTINCT)
            self._images = [frame.image[:height, :width].copy() for frame in frames]

    def __iter__(self) -> Iterator[Frame]:
        start = time.monotonic()
        for index in itertools.count() if self._count is None else range(self._count):
            time.sleep(max(0.0, start + index * self._period_s - time.monotonic()))
            yield Frame(index, str(index), time.time(), self._images[index % len(self._images)].copy())
