"""The last stage: detections and annotated images go to the window and the files of a run."""

from __future__ import annotations

import math
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from gfl_edge.camera.feeds import CameraFrame, Feed
from gfl_edge.errors import OutputError
from gfl_edge.media.draw import contact_sheet, draw_status
from gfl_edge.media.lines import JsonLinesSink
from gfl_edge.media.sinks import MAX_WINDOW_WH, VideoSink, Window
from gfl_edge.media.sources import VideoFile
from gfl_edge.media.streams import StreamSink
from gfl_edge.media.targets import target_of
from gfl_edge.ops.preprocess import Image

SHEETS_PER_SECOND = 20  # of a window with several sources
EMPTY_HW = (90, 160)  # of the cell of a source without a frame so far


class Delivery:
    """Files and window of a run; a frame is in all of them or in none. Usable as a context manager, which closes them.

    Args:
        output: of the annotated videos, see :func:`gfl_edge.media.targets.target_of`; None = none.
        json_lines: file that takes a line for every frame, "-" = stdout; None = none.
        window: shows the images, those of several sources side by side.
        sources: how many there are.
        watched: whether somebody follows the run in another way.
        reconnect_seconds: how long an output is tried again that is lost on the way.

    Raises:
        InputError: the file of lines cannot be written.
    """

    def __init__(
        self,
        output: str | Path | None,
        json_lines: str | Path | None,
        window: Window | None,
        sources: int,
        *,
        watched: bool = False,
        reconnect_seconds: float = 0.0,
    ) -> None:
        self._output, self._window, self._sources = output or None, window, sources
        self._watched, self._reconnect_seconds = watched, reconnect_seconds
        self.json_lines = str(json_lines) if json_lines else None
        self._videos: dict[int, VideoSink | StreamSink] = {}
        self._open = ExitStack()
        self._lines = self._open.enter_context(JsonLinesSink(json_lines)) if json_lines else None
        if window:
            self._open.enter_context(window)
        self._latest: list[Image] = [np.zeros((*EMPTY_HW, 3), np.uint8)] * sources
        self._sheet_s = -math.inf

    @property
    def draws(self) -> bool:
        """Whether the images are looked at."""
        return self._output is not None or self._window is not None

    def write(self, item: CameraFrame) -> None:
        """Write the frame to the files; raises InputError and BrokenPipeError as the sinks do.

        Raises:
            OutputError: every output was given up, so that nobody sees the run any more.
        """
        video = self._video(item.feed) if self._output else None
        if video:
            video.expect(item.image)
        if self._lines:
            self._lines.write(
                {
                    "source": item.feed.index,
                    "frame": item.frame.index,
                    "name": item.frame.name,
                    "time_s": round(item.frame.time_s, 6),
                    "detections": item.detections.to_dicts(),
                    "ms": {stage: round(value, 3) for stage, value in item.ms.items() if stage != "draw"},
                }
            )
        if video:
            video.write(item.image, item.frame.time_s)
            self._check_that_somebody_looks()

    def _check_that_somebody_looks(self) -> None:
        if self._watched or self._lines or self._window or len(self._videos) < self._sources:
            return
        errors = [video.error for video in self._videos.values() if isinstance(video, StreamSink)]
        if len(errors) == self._sources and all(errors):
            raise OutputError("; ".join(map(str, errors)) + ". There is no other output, so that the run ends")

    def _video(self, feed: Feed) -> VideoSink | StreamSink:
        """The video of a source, which its first frame begins."""
        if feed.index not in self._videos:
            assert self._output is not None
            assert feed.source is not None
            target = target_of(self._output, feed.index, self._sources)
            hold, live = isinstance(feed.source, VideoFile), feed.source.live  # the rate of a video file may vary
            if isinstance(target, Path):
                video = self._open.enter_context(VideoSink(target, feed.source.fps, measure=live, hold=hold))
                self._videos[feed.index] = video
            else:
                seconds = self._reconnect_seconds
                stream = StreamSink(
                    target, feed.source.fps, measure=live, hold=hold, live=live, reconnect_seconds=seconds
                )
                self._videos[feed.index] = self._open.enter_context(stream)
        return self._videos[feed.index]

    def show(self, item: CameraFrame, text: str) -> bool:
        """Show the frame in the window, with ``text``; False when the user has closed it."""
        if self._window is None:
            return True
        if self._sources == 1:
            return self._window.show(draw_status(item.image, text))
        self._latest[item.feed.index] = item.image
        if time.monotonic() - self._sheet_s < 1 / SHEETS_PER_SECOND:
            return True
        self._sheet_s = time.monotonic()
        sheet = contact_sheet(self._latest, math.ceil(math.sqrt(self._sources)), MAX_WINDOW_WH[0])
        return self._window.show(draw_status(sheet, text, out=sheet))

    def stays(self) -> bool:
        """Keep the window alive while nothing comes; False when the user has closed it."""
        return self._window is None or self._window.stays()

    def video(self, feed: Feed) -> VideoSink | StreamSink | None:
        """The video of a source; None if none was requested or no frame came."""
        sink = self._videos.get(feed.index)
        return sink if sink and sink.frames else None

    def close(self) -> None:
        """Finish the files and close the window."""
        self._open.close()

    def __enter__(self) -> Delivery:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
