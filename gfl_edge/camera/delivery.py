"""The last stage: detections and annotated images go to the window and the files of a run."""

from __future__ import annotations

import math
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from gfl_edge.camera.feeds import CameraFrame, Feed
from gfl_edge.media.draw import contact_sheet, draw_status
from gfl_edge.media.lines import JsonLinesSink
from gfl_edge.media.sinks import MAX_WINDOW_WH, VideoSink, Window
from gfl_edge.media.sources import VideoFile
from gfl_edge.ops.preprocess import Image

SOURCE_FIELD = "{source}"  # in the name of a video: stands for the number of its source
SHEETS_PER_SECOND = 20  # of a window with several sources
EMPTY_HW = (90, 160)  # of the cell of a source without a frame so far


class Delivery:
    """Files and window of a run; a frame is in all of them or in none. Usable as a context manager, which closes them.

    Args:
        output: path of the annotated videos, see :func:`video_path`; None = none.
        json_lines: file that takes a line for every frame, "-" = stdout; None = none.
        window: shows the images, those of several sources side by side.
        sources: how many there are.

    Raises:
        InputError: the file of lines cannot be written.
    """

    def __init__(
        self, output: str | Path | None, json_lines: str | Path | None, window: Window | None, sources: int
    ) -> None:
        self._output, self._window, self._sources = Path(output) if output else None, window, sources
        self.json_lines = str(json_lines) if json_lines else None
        self._videos: dict[int, VideoSink] = {}
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
        """Write the frame to the files; raises InputError and BrokenPipeError as the sinks do."""
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

    def _video(self, feed: Feed) -> VideoSink:
        """The video of a source, which its first frame begins."""
        if feed.index not in self._videos:
            assert self._output is not None
            assert feed.source is not None
            path = video_path(self._output, feed.index, self._sources)
            hold = isinstance(feed.source, VideoFile)  # whose rate may vary
            sink = VideoSink(path, feed.source.fps, measure=feed.source.live, hold=hold)
            self._videos[feed.index] = self._open.enter_context(sink)
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

    def video(self, feed: Feed) -> Path | None:
        """The video of a source; None if none was requested or no frame came."""
        sink = self._videos.get(feed.index)
        return sink.path if sink and sink.frames else None

    def close(self) -> None:
        """Finish the files and close the window."""
        self._open.close()

    def __enter__(self) -> Delivery:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def video_path(video: Path, index: int, sources: int) -> Path:
    """The path of a source's video: its number in place of ``{source}``, or after the name where there are several."""
    if SOURCE_FIELD in str(video):
        return Path(str(video).replace(SOURCE_FIELD, str(index)))
    return video if sources == 1 else video.with_name(f"{video.stem}-{index}{video.suffix}")
