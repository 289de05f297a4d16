"""Several sources, each read by a thread of its own; the detector is given frames of them in turn."""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from gfl_edge.camera.pipeline import STOP_SECONDS, BoundedQueue, EndOfItems, QueueDepth, Stopped, join_all
from gfl_edge.camera.status import LatencyHistogram, RecentRate
from gfl_edge.camera.summary import SourceSummary, rate
from gfl_edge.detections import Detections
from gfl_edge.errors import GflEdgeError, InputError, SourceError
from gfl_edge.filters.detection_filter import DetectionFilter
from gfl_edge.media.opening import Source, open_source
from gfl_edge.media.sinks import VideoSink
from gfl_edge.media.sources import Frame, FrameSource, ImageFiles
from gfl_edge.media.streams import StreamSink
from gfl_edge.ops.preprocess import Image, checked_size
from gfl_edge.redact import redact, shown_source

# Frames that wait to be taken: of a file, and of a live source, where another would only be older than the newest
WAITING, WAITING_LIVE = 2, 1

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class CameraFrame:
    """A frame on its way through the camera, to which each stage adds what it finds.

    Attributes:
        feed: the source it came from.
        frame: as the source gave it.
        captured_s: when it had been read, by ``time.perf_counter``.
        ms: milliseconds by stage, so far; ``read`` includes the wait for a camera.
        annotated: copy of the image with what was found; None before it is drawn, and where nobody looks.
        found: all detections of the model; set by the network's stage.
        detections: those of them that count; set there, too.
    """

    feed: Feed
    frame: Frame
    captured_s: float
    ms: dict[str, float]
    annotated: Image | None = None
    found: Detections = field(init=False)
    detections: Detections = field(init=False)
    invalid: int = field(init=False)

    @property
    def image(self) -> Image:
        """What is shown and written."""
        return self.frame.image if self.annotated is None else self.annotated


class Feed:
    """A source that is opened, read and closed in one thread.

    A live source is read as fast as it delivers: a frame that nobody has taken when the next arrives is dropped. A file
    waits, and loses none.

    Args:
        index: place among the sources, from 0.
        source: see :func:`gfl_edge.media.opening.open_source`.
        reconnect_seconds: as there.
        changed: notified of every frame, and when the source was opened or has ended.
        keep: whose regions have to lie in the frames.

    Attributes:
        name: for messages.
        source: once it is open.
        inbox: frames that wait.
        delivered: frames that went all the way.
        invalid: what the model gave in them that can be no detections.
        latency: from capture to delivery, of those.
        rate: at which they were delivered, lately.
        error: what ended it early.
    """

    def __init__(
        self, index: int, source: Source, reconnect_seconds: float, changed: threading.Condition, keep: DetectionFilter
    ) -> None:
        self.index, self._keep = index, keep
        self.name = source.name if isinstance(source, FrameSource) else shown_source(source)
        self.source: FrameSource | None = None
        self.inbox: BoundedQueue[CameraFrame] = BoundedQueue(WAITING, changed)
        self.delivered, self.invalid, self.latency = 0, 0, LatencyHistogram()
        self.rate = RecentRate()
        self.error: BaseException | None = None
        self._opening, self._reconnect_seconds, self._changed = source, reconnect_seconds, changed
        self._stopped = threading.Event()
        self.thread = threading.Thread(target=self._run, name=f"gfl_edge read {self.name}", daemon=True)

    def _run(self) -> None:
        """The thread: all calls of the source's library are here, so that one that hangs holds up nobody."""
        try:
            opened = open_source(self._opening, reconnect_seconds=self._reconnect_seconds, stopped=self._stopped)
            with opened as source:
                if source.live:
                    self.inbox.capacity = WAITING_LIVE
                with self._changed:
                    self.name, self.source = source.name, source
                    self._changed.notify_all()
                put = self.inbox.put_newest if source.live else self.inbox.put
                frames, start = iter(source), time.perf_counter()
                while not self._stopped.is_set() and (frame := next(frames, None)) is not None:
                    now = time.perf_counter()
                    put(CameraFrame(self, frame, now, {"read": 1000 * (now - start)}))
                    start = time.perf_counter()
            self.inbox.end()
        except Stopped:
            pass
        except BaseException as error:  # an interruption, too, is raised to whoever takes
            self.inbox.end(error)

    @property
    def away(self) -> bool:
        """Whether it is waited for: it is not open yet, or was lost."""
        return not self.inbox.over and (self.source is None or self.source.lost)

    @property
    def live(self) -> bool:
        """Whether it is a camera or stream."""
        return self.source is not None and self.source.live

    def take(self) -> CameraFrame | None:
        """The next frame that can be used, if one waits.

        Raises:
            InputError: that of a camera or video is no image, or a region lies outside of it; image files are skipped.
        """
        while (taken := self.inbox.poll()) is not None:
            try:
                self._keep.check_frame(checked_size(taken.frame.pixels), self.index)
            except InputError as error:
                if not isinstance(self.source, ImageFiles):
                    raise
                self.source.skip(taken.frame.name, str(error))
            else:
                return taken
        return None

    def fail(self, error: BaseException) -> None:
        """Take nothing more from it, because of ``error``."""
        self.error = error
        self.stop()

    def summary(self, seconds: float, video: VideoSink | StreamSink | None) -> SourceSummary:
        """What a run of so many seconds did with it, and with its annotated video."""
        stream = video if isinstance(video, StreamSink) else None
        return SourceSummary(
            name=self.name,
            frames=self.delivered,
            dropped=self.inbox.dropped,
            invalid=self.invalid,
            fps=rate(self.delivered, seconds),
            latency_ms=self.latency.to_dict(),
            skipped=tuple(self.source.skipped) if self.source else (),
            reconnects=self.source.reconnects if self.source else 0,
            error=None if self.error is None else redact(str(self.error)),
            output=video.path if video else None,
            output_dropped=stream.dropped if stream else 0,
            output_error=None if stream is None or stream.error is None else str(stream.error),
        )

    def stop(self) -> None:
        """Let the thread end as soon as the call that it is in returns."""
        self._stopped.set()
        if self.source is not None:
            self.source.stop()
        self.inbox.stop()


class Feeds:
    """All sources of a run. Usable as a context manager: their threads start when it is entered and end with it.

    Where there are several, one that fails is logged and left out, as long as another is there. Where there is one, its
    error is raised after its last frame.

    Args:
        sources: one or more, see :func:`gfl_edge.media.opening.open_source`.
        reconnect_seconds: as there.
        batch: frames that are given at once, of as many sources.
        max_frames: to give in all; None = no limit.
        keep: whose regions have to lie in the frames.

    Attributes:
        ended_by: why there are no more.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        reconnect_seconds: float,
        batch: int,
        max_frames: int | None,
        keep: DetectionFilter,
    ) -> None:
        self._changed = threading.Condition()
        self.feeds = [Feed(i, source, reconnect_seconds, self._changed, keep) for i, source in enumerate(sources)]
        self._active = list(self.feeds)
        self._batch, self._left = batch, max_frames
        self._stopped = False
        self.ended_by: Literal["end of source", "max_frames"] = "end of source"

    def open_within(self, seconds: float) -> bool:
        """Wait, ``seconds`` at most, until one source is open; whether one is. The others may follow later.

        Raises:
            SourceError: none can be opened. Where there is only one, its own error.
        """

        def decided() -> bool:
            return any(feed.source for feed in self.feeds) or all(feed.inbox.over for feed in self.feeds)

        with self._changed:
            self._changed.wait_for(decided, seconds)
            if not any(feed.source for feed in self.feeds):
                self._drop_those_that_are_over()
            return decided()

    def get(self) -> list[CameraFrame]:
        """Wait for frames: at least one, and one each of as many sources as have one, up to the batch.

        No frame waits for that of another source. A source that was not served comes first next time.

        Raises:
            EndOfItems: all sources have ended, or the limit is reached.
            Stopped: :meth:`stop` was called.
            SourceError: all sources have failed. Where there is only one, its own error.
        """
        with self._changed:
            while not self._stopped:
                if self._left == 0:
                    self.ended_by = "max_frames"
                    raise EndOfItems
                self._drop_those_that_are_over()
                if taken := self._take():
                    return taken
                # Taking may have come to the end of a source, by frames that are no images
                if self._active and not any(feed.inbox.over for feed in self._active):
                    self._changed.wait()
            raise Stopped

    def _take(self) -> list[CameraFrame]:
        taken: list[CameraFrame] = []
        limit = self._batch if self._left is None else min(self._batch, self._left)
        for feed in list(self._active):
            if len(taken) == limit:
                break
            try:
                item = feed.take()
            except InputError as error:
                if len(self.feeds) == 1:
                    raise
                self._lose(feed, error)
                continue
            if item is not None:
                taken.append(item)
                self._active.remove(feed)
                self._active.append(feed)  # the longest unserved is first
        if self._left is not None:
            self._left -= len(taken)
        return taken

    def _drop_those_that_are_over(self) -> None:
        """Raises what :meth:`get` does where none is left."""
        for feed in [feed for feed in self._active if feed.inbox.over]:
            error = feed.inbox.error
            if error is None:
                self._active.remove(feed)
            elif len(self.feeds) == 1 or not isinstance(error, Exception):
                feed.error = error
                raise error
            else:
                self._lose(feed, error)
        if not self._active:
            errors = [redact(str(feed.error)) for feed in self.feeds if feed.error]
            if len(errors) == len(self.feeds):
                raise SourceError(f"all {len(errors)} sources failed: " + "; ".join(errors))
            raise EndOfItems

    def _lose(self, feed: Feed, error: Exception) -> None:
        self._active.remove(feed)
        feed.fail(error)
        # What is no error of the source's own is a bug, whose place matters; it may name the source as it was given
        said = str(error) if isinstance(error, GflEdgeError) else "".join(traceback.format_exception(error))
        logger.warning("source %d is left out: %s", feed.index, redact(said))

    @property
    def total(self) -> int | None:
        """Frames of a single source, where it says how many it has."""
        return self.feeds[0].source.total if len(self.feeds) == 1 and self.feeds[0].source else None

    @property
    def dropped(self) -> int:
        """Frames of live sources that were too old when their turn came."""
        return sum(feed.inbox.dropped for feed in self.feeds)

    @property
    def away(self) -> list[int]:
        """Numbers of the sources that are waited for."""
        return [feed.index for feed in self.feeds if feed.away]

    def depth(self) -> QueueDepth:
        """Of the inboxes: the mean over all, and the deepest."""
        depths = [feed.inbox.depth() for feed in self.feeds]
        mean = sum(depth.mean for depth in depths) / len(depths)
        return QueueDepth(max(d.capacity for d in depths), mean, max(d.most for d in depths))

    def __len__(self) -> int:
        return sum(len(feed.inbox) for feed in self.feeds)

    def stop(self) -> None:
        """Send away whoever takes, and let the threads end."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        for feed in self.feeds:
            feed.stop()

    def __enter__(self) -> Feeds:
        for feed in self.feeds:
            feed.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        join_all([feed.thread for feed in self.feeds], STOP_SECONDS)
