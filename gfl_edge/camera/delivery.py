"""The last stage: detections and pictures go to the window and the files of a run."""

from __future__ import annotations

import math
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gfl_edge.camera.feeds import Feed, Taken
from gfl_edge.detections import Detections
from gfl_edge.media.draw import draw_status, picture_sheet
from gfl_edge.media.sinks import LARGEST_WINDOW_WH, JsonLinesSink, VideoSink, Window
from gfl_edge.ops.preprocess import Image

SOURCE_FIELD = "{source}"  # in the name of a video: stands for the number of its source
SHEETS_PER_SECOND = 20  # of a window with several sources
EMPTY_HW = (90, 160)  # of the cell of a source without a frame so far


@dataclass(eq=False)
class Result:
    """A frame with its detections.

    Attributes:
        taken: the frame.
        detections: that count.
        ms: milliseconds by stage, so far.
        picture: the frame, or a copy that is drawn on.
    """

    taken: Taken
    detections: Detections
    ms: dict[str, float]
    picture: Image


class Delivery:
    """Files and window of a run; a frame is in all of them or in none. Usable as a context manager.

    Args:
        video: path of the annotated videos, see :func:`video_path`; None = none.
        lines: takes a record of every frame.
        window: shows the pictures, those of several sources side by side.
        sources: how many there are.
    """

    def __init__(self, video: Path | None, lines: JsonLinesSink | None, window: Window | None, sources: int) -> None:
        self._video, self._lines, self._window, self._sources = video, lines, window, sources
        self._videos: dict[int, VideoSink] = {}
        self._open = ExitStack()
        self._latest: list[Image] = [np.zeros((*EMPTY_HW, 3), np.uint8)] * sources
        self._sheet_s = -math.inf

    @property
    def draws(self) -> bool:
        """Whether the pictures are looked at."""
        return self._video is not None or self._window is not None

    def write(self, result: Result) -> None:
        """Write the result to the files; raises InputError and BrokenPipeError as the sinks do."""
        if self._lines:
            self._lines.write(_record(result))
        if self._video:
            self._video_of(result.taken.feed).write(result.picture, result.taken.frame.time_s)

    def _video_of(self, feed: Feed) -> VideoSink:
        if feed.index not in self._videos:
            assert self._video is not None
            assert feed.source is not None
            path = video_path(self._video, feed.index, self._sources)
            sink = VideoSink(path, feed.source.fps, measure=feed.source.live)
            self._videos[feed.index] = self._open.enter_context(sink)
        return self._videos[feed.index]

    def show(self, result: Result, text: str) -> bool:
        """Show the result in the window, with ``text``; False when the user has closed it."""
        if self._window is None:
            return True
        if self._sources == 1:
            return self._window.show(draw_status(result.picture, text))
        self._latest[result.taken.feed.index] = result.picture
        if time.monotonic() - self._sheet_s < 1 / SHEETS_PER_SECOND:
            return True
        self._sheet_s = time.monotonic()
        sheet = picture_sheet(self._latest, math.ceil(math.sqrt(self._sources)), LARGEST_WINDOW_WH[0])
        return self._window.show(draw_status(sheet, text, out=sheet))

    def stays(self) -> bool:
        """Keep the window alive while nothing comes; False when the user has closed it."""
        return self._window is None or self._window.stays()

    def video(self, feed: Feed) -> Path | None:
        """The video of a source; None if none was asked for or no frame came."""
        sink = self._videos.get(feed.index)
        return sink.path if sink and sink.frames else None

    def close(self) -> None:
        """Finish the videos."""
        self._open.close()

    def __enter__(self) -> Delivery:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def video_path(video: Path, index: int, sources: int) -> Path:
    """The path of a source's video: its number in place of ``{source}``, or behind the name where there are several."""
    if SOURCE_FIELD in str(video):
        return Path(str(video).replace(SOURCE_FIELD, str(index)))
    return video if sources == 1 else video.with_name(f"{video.stem}-{index}{video.suffix}")


def _record(result: Result) -> dict[str, Any]:
    frame = result.taken.frame
    return {
        "source": result.taken.feed.index,
        "frame": frame.index,
        "name": frame.name,
        "time_s": round(frame.time_s, 6),
        "detections": result.detections.to_dicts(),
        "ms": {stage: round(value, 3) for stage, value in result.ms.items() if stage != "draw"},
    }
