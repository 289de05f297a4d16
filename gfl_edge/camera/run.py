"""The camera: read, detect, draw and write at the same time, until the sources end or somebody stops it.

    source 0 -- read --> inbox --+
    source 1 -- read --> inbox --+--> preprocess --> queue --> network --> queue --> draw --> queue --> write
    source 2 -- read --> inbox --+    one frame of             detections            annotated          files, window
                                      each, resized                                  image              and on_frame

Each stage is a thread, except the last: it is the caller's, as windows belong to it. Reading is a thread a source, and
drawing is left out where nobody looks. Inboxes and queues hold one or two frames, so that the slowest stage sets the
pace. An end or an error travels through the queues after the frames before it; stopping empties them.

The stages are here, the sources in :mod:`gfl_edge.camera.feeds`, threads and queues in
:mod:`gfl_edge.camera.pipeline`, the outputs in :mod:`gfl_edge.camera.delivery`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence, Sized
from contextlib import ExitStack
from numbers import Integral
from pathlib import Path

from gfl_edge.backends.base import Performance
from gfl_edge.backends.select import BackendName
from gfl_edge.camera.delivery import Delivery
from gfl_edge.camera.feeds import CameraFrame, Feeds
from gfl_edge.camera.live import live_of, run_statistics
from gfl_edge.camera.pipeline import BoundedQueue, EndOfItems, Pipeline
from gfl_edge.camera.status import LatencyHistogram, StageTimes, StatusLine
from gfl_edge.camera.steady_batch import SteadyBatch
from gfl_edge.camera.stop_signals import StopSignals
from gfl_edge.camera.summary import CameraSummary, StoppedBy, rate
from gfl_edge.detections import Detections
from gfl_edge.detector import Detector, Inference, Prepared, Started
from gfl_edge.errors import InputError, SourceError
from gfl_edge.files import check_output
from gfl_edge.filters.detection_filter import DetectionFilter
from gfl_edge.filters.draw import draw_regions
from gfl_edge.media.containers import RESERVE_BYTES
from gfl_edge.media.draw import draw_detections
from gfl_edge.media.lines import STDOUT, check_lines
from gfl_edge.media.opening import (
    RECONNECT_SECONDS,
    Source,
    check_reconnect_seconds,
    check_source,
    followed,
    is_recorded,
    sources_of,
)
from gfl_edge.media.sinks import VideoSink, Window, why_no_window
from gfl_edge.media.sources import Frame, FrameSource
from gfl_edge.media.targets import target_of
from gfl_edge.ops.preprocess import checked_size
from gfl_edge.redact import shown_source
from gfl_edge.tracking.tracker import ObjectTracker
from gfl_edge.web.live import Live, Run
from gfl_edge.web.page import LivePage

# Frames between two stages: one, since each more makes a live image older by a frame; files have a spare one, which
# evens out stages that take now more, now less
WAITING, WAITING_LIVE = 2, 1
POLL_SECONDS = 0.05  # between looks at whether a signal came


def run_camera(
    model: str | Path | Detector | None = None,
    source: Source | Sequence[Source] = 0,
    *,
    backend: BackendName = "auto",
    keep: DetectionFilter | None = None,
    show: bool | None = None,
    output: str | Path | None = None,
    json_lines: str | Path | None = None,
    max_frames: int | None = None,
    reconnect_seconds: float = RECONNECT_SECONDS,
    draw_sigma: bool = False,
    track: bool = False,
    on_frame: Callable[[Frame, Detections], None] | None = None,
    serve: str | LivePage | None = None,
) -> CameraSummary:
    """Detect in every frame of one or more sources until they end, a window is closed, or a signal says so.

    Reading, resizing, the network, drawing and writing overlap, so that the slowest of them sets the pace. On a CPU a
    file, or several sources, also have a frame in the network for each core. Files wait and lose no frame. Of a live
    source the newest frame is taken and older ones are dropped, so that no image is older than a few times what the
    slowest stage takes. The frames of a source stay in order.

    Several sources take turns, so that an image may be older by a turn of the others. An engine that was built for
    batches runs the frames that wait, one of each source, as one. A source that fails is logged and left out, as long
    as another is there.

    Signals are Ctrl-C, SIGTERM and, where it is not ignored as under ``nohup``, SIGHUP: a terminal that is closed.

    A status line on stderr shows frames per second, milliseconds per stage, and how full the queues are. Whatever ends
    the run, an error too, what was written until then is kept and whole; a frame is in all outputs or in none.

    Args:
        model: model file, or a detector, which is left open, and is as fast as it was made to be, see
            :func:`performance_for`; None: the bundled detector.
        source: see :func:`gfl_edge.media.opening.open_source`; or several of them. Threads of their own read them and
            close them at the end.
        backend: what runs a model file.
        keep: which detections are drawn, written and handed on; None: those from the score on that the model
            recommends, see :attr:`gfl_edge.spec.ModelSpec.shown_score`. Its regions are drawn, too.
        show: True = in a window (q, Esc or its close button ends the run), None = in one if there is a screen.
        output: annotated video: a file, ``.mp4`` or ``.avi``; or, where OpenCV has GStreamer, an address (``rtsp://``,
            ``rtsps://``, ``srt://``, ``udp://``) or a pipeline that begins with ``appsrc``. Several sources write one
            each: ``out-0.mp4``, ``out-1.mp4``, or with their number in place of ``{source}``, which addresses and
            pipelines need then. A stream that fails on the way is tried again for ``reconnect_seconds``, and then given
            up; the run goes on as long as it has another output. See :class:`gfl_edge.media.streams.StreamSink`.
        json_lines: file with one JSON object per frame, "-" = stdout: ``source`` (its number), ``frame``, ``name``,
            ``time_s``, ``detections`` as by :meth:`Detections.to_dicts` and ``ms`` with the times until detection.
        max_frames: stop after so many, of all sources together.
        reconnect_seconds: how long to try where a camera or stream is not there, or drops; 0 = not at all.
        draw_sigma: draw how sure the model is of each edge, see :func:`gfl_edge.media.draw.draw_detections`.
        track: follow objects from frame to frame, those of each source by themselves; detections then have
            ``track_ids``. See :class:`gfl_edge.tracking.tracker.ObjectTracker`.
        on_frame: called with every frame and its detections, after they were written; in the caller's thread.
        serve: live page with images and statistics, at ``[HOST:]PORT``, without a host only for this machine; or a
            :class:`gfl_edge.web.page.LivePage`, which knows its token. Who watches never holds up the run.

    Raises:
        SourceError: the source, or every one of several, cannot be opened, is lost for good, or has no image that can
            be used.
        InputError: a setting, an output that cannot be written, or a window without a screen.
        ModelFileError, BackendError: the model cannot be used.
        FrameError: the detector refuses a frame of a camera or video; image files are skipped and counted instead.
    """
    sources, keep = sources_of(source), keep or DetectionFilter()
    _check_sources(sources, reconnect_seconds)
    _check_settings(keep, max_frames, sources, output, json_lines)
    trackers = [ObjectTracker() for _ in sources] if track else []
    with ExitStack() as stack:
        stop = stack.enter_context(StopSignals())
        live = None if serve is None else live_of(serve, stack)
        window = _window(show)
        if model is None or isinstance(model, (str, Path)):
            detector = stack.enter_context(Detector(model, backend, performance=performance_for(sources)))
        else:
            detector = model
        asked, keep = keep, keep.for_model(detector.spec)
        if draw_sigma:
            detector.spec.require_sigmas("draw_sigma")
        batch = min(len(sources), detector.backend.max_batch or 1)  # CPUs, which take any, gain nothing from it
        stop.disarm()
        # After the model, as frames would be dropped while it loads
        feeds = stack.enter_context(Feeds(sources, reconnect_seconds, batch, max_frames, keep))
        while not feeds.open_within(POLL_SECONDS):
            if stop.requested:
                raise KeyboardInterrupt
        pipeline = stack.enter_context(Pipeline())
        watched = on_frame is not None or live is not None
        outputs = Delivery(
            output, json_lines, window, len(sources), watched=watched, reconnect_seconds=reconnect_seconds
        )
        delivery = stack.enter_context(outputs)
        run = CameraRun(detector, feeds, pipeline, delivery, asked, keep, trackers, on_frame, draw_sigma, live)
        with run.status:
            stopped_by = run.until_it_ends(stop)
    return run.summary(stopped_by)


def performance_for(sources: Sequence[Source]) -> Performance:
    """Latency for one camera or stream, whose newest frame counts; throughput for files, and for several sources."""
    one_live = len(sources) == 1 and not is_recorded(sources[0])
    return "latency" if one_live else "throughput"


def _check_sources(sources: Sequence[Source], reconnect_seconds: float) -> None:
    check_reconnect_seconds(reconnect_seconds)
    if not sources:
        raise InputError("no source: give a camera number, file, folder, URL or pipeline, or several of them")
    for source in sources:
        check_source(source)
    opened = [id(source) for source in sources if isinstance(source, FrameSource)]
    if len(set(opened)) < len(opened):
        raise InputError("the same FrameSource is given twice: each can be read once, give another object")


def _check_settings(
    keep: DetectionFilter,
    max_frames: int | None,
    sources: Sequence[Source],
    output: str | Path | None,
    json_lines: str | Path | None,
) -> None:
    keep.check_sources(len(sources))
    whole = isinstance(max_frames, Integral) and not isinstance(max_frames, bool)
    if max_frames is not None and not (whole and max_frames >= 1):
        raise InputError(f"max_frames {max_frames!r}: expected 1 or more, or None for all")
    targets = [target_of(output, i, len(sources)) for i in range(len(sources))] if output else []
    videos = [target for target in targets if isinstance(target, Path)]
    for video in videos:
        VideoSink(video, None)  # a wrong suffix is reported before the model is loaded
        check_output(video, RESERVE_BYTES)
    if json_lines:
        check_lines(json_lines)
    lines = [Path(json_lines)] if json_lines and str(json_lines) != STDOUT else []
    files = [path.resolve() for path in (*videos, *lines)]
    if len(set(files)) < len(files):
        raise InputError(f"{json_lines} is to hold both a video and the detections: give two files")
    for source in sources:
        if isinstance(source, (str, Path)) and Path(followed(str(source))) in files:
            name = shown_source(source)
            raise InputError(f"{name} is the source and would be written over: choose another output file")


def _window(show: bool | None) -> Window | None:
    """A window if one is wanted; raises InputError if it is required and cannot be opened."""
    if show is False:
        return None
    reason = why_no_window()
    if reason is None:
        return Window("gfl_edge: q or Esc to quit")
    if show:
        raise InputError(f"no window can be opened: {reason}. Or run without one (--headless, show=False)")
    return None


class CameraRun:
    """The stages of a run, in the order in which frames pass them, and what they add up to.

    Args:
        detector: resizes and finds.
        feeds: open sources.
        pipeline: empty, takes the stages.
        delivery: takes the results.
        asked: which detections count, as it was asked for.
        keep: the same, with the scores that the model recommends.
        trackers: one for each source, or none.
        on_frame: called after every delivery.
        draw_sigma: whether it is drawn how sure each edge is.
        live: takes the newest frames, for the page.

    Attributes:
        times: of the stages.
        latency: milliseconds from capture to delivery.
        seconds: that it took.
        status: the line that shows how it goes.
    """

    def __init__(
        self,
        detector: Detector,
        feeds: Feeds,
        pipeline: Pipeline,
        delivery: Delivery,
        asked: DetectionFilter,
        keep: DetectionFilter,
        trackers: Sequence[ObjectTracker],
        on_frame: Callable[[Frame, Detections], None] | None,
        draw_sigma: bool = False,
        live: Live | None = None,
    ) -> None:
        self.times, self.latency, self.seconds = StageTimes(), LatencyHistogram(), 0.0
        self.status = StatusLine(feeds.total, self.load)
        self._detector, self._feeds, self._delivery = detector, feeds, delivery
        self._pipeline, self._asked, self._keep, self._on_frame = pipeline, asked, keep, on_frame
        self._trackers, self._batch, self._draw_sigma, self._live = trackers, SteadyBatch(), draw_sigma, live

    def until_it_ends(self, stop: StopSignals) -> StoppedBy:
        """Deliver what comes; every way out but an error is returned. Signals raise only in ``on_frame``."""
        start = time.perf_counter()
        ready = self.start()
        if self._live is not None:
            known = self._detector, self._feeds, self.times, self._waiting, start
            filters, backend = (self._keep, self._asked), self._detector.backend
            shown = Run(*filters, backend, self._draw_sigma, lambda: run_statistics(*known))
            self._live.follow(shown, len(self._feeds.feeds))
        try:
            while not stop.requested:
                item = ready.get_within(POLL_SECONDS)
                stays = self._delivery.stays() if item is None else self.deliver(item)
                if item is not None and self._on_frame is not None:
                    with stop.armed():
                        self._on_frame(item.frame, item.detections)
                if not stays:
                    return "user"
        except EndOfItems:
            return self._feeds.ended_by
        except KeyboardInterrupt:
            pass
        finally:
            self.seconds = time.perf_counter() - start
            self._feeds.stop()
            self._pipeline.stop()
        return "interrupt"

    def start(self) -> BoundedQueue[CameraFrame]:
        """Start all stages but the last, which takes its frames from the queue that is returned."""
        waiting = WAITING_LIVE if any(feed.live for feed in self._feeds.feeds) else WAITING
        add, draws = self._pipeline.add, self._delivery.draws
        prepared = add("preprocess", self._feeds, self.prepare, "network", waiting)
        after = "draw" if draws else "write"
        if self._detector.in_flight > 1:  # those that are started: one is being finished, the others wait
            started = add("network", prepared, self.start_network, "detections", self._detector.in_flight - 1)
            found = add("detections", started, self.finish_network, after, waiting)
        else:
            found = add("network", prepared, self.infer, after, waiting)
        return add("draw", found, self.draw, "write", waiting) if draws else found

    def prepare(self, items: list[CameraFrame]) -> list[tuple[list[CameraFrame], Prepared]]:
        """Resize frames of several sources as one batch."""
        images = [item.frame.pixels for item in items]
        images += images[-1:] * (self._batch.size(len(images)) - len(images))
        return [(items, self._detector.prepare(images))]

    def infer(self, ready: tuple[list[CameraFrame], Prepared]) -> list[CameraFrame]:
        """Run the network on a batch."""
        items, prepared = ready
        return self._with(items, self._detector.infer(prepared))

    def start_network(self, ready: tuple[list[CameraFrame], Prepared]) -> list[tuple[list[CameraFrame], Started]]:
        """Begin to run the network on a batch."""
        items, prepared = ready
        return [(items, self._detector.start(prepared))]

    def finish_network(self, started: tuple[list[CameraFrame], Started]) -> list[CameraFrame]:
        """Wait for the network."""
        items, run = started
        return self._with(items, self._detector.finish(run))

    def _with(self, items: list[CameraFrame], found: Inference) -> list[CameraFrame]:
        """The frames with what was found in them."""
        # The batch may have been filled up
        for item, detections, invalid in zip(items, found.detections, found.invalid, strict=False):
            source, size = item.feed.index, checked_size(item.frame.pixels)
            item.found, item.invalid = detections, invalid
            item.detections = self._keep.apply(detections, size, source=source)
            item.ms.update(found.ms)
            if self._trackers:
                start = time.perf_counter()
                item.detections = self._trackers[source].update(item.detections, item.frame.time_s)
                item.ms["postprocess"] += _ms_since(start)
        return items

    def draw(self, item: CameraFrame) -> list[CameraFrame]:
        """Annotate a copy of the image."""
        start = time.perf_counter()
        image = draw_regions(item.image, self._keep, item.feed.index)
        out = None if image is item.image else image
        item.annotated = draw_detections(image, item.detections, out=out, bands=self._draw_sigma)
        item.ms["draw"] = _ms_since(start)
        return [item]

    def deliver(self, item: CameraFrame) -> bool:
        """Write and show; False when the user has closed the window."""
        start = time.perf_counter()
        self._delivery.write(item)
        fps, name = self.times.recent_fps(), self._detector.backend.name
        stays = self._delivery.show(item, f"{fps:.1f} FPS, network {item.ms['network']:.1f} ms ({name})")
        latency_ms = _ms_since(item.captured_s)
        for latency in (self.latency, item.feed.latency):
            latency.add(latency_ms)
        item.feed.delivered += 1
        item.feed.invalid += item.invalid
        item.feed.rate.add()
        if self._live is not None:
            self._live.show(item.feed.index, item.frame.pixels, item.found, item.detections)
        self.times.add({"draw": 0.0, **item.ms, "write": _ms_since(start)})
        several = len(self._feeds.feeds) > 1
        self.status.update(self.times.frames if several else item.frame.index + 1, self.times)
        return stays

    @property
    def _waiting(self) -> dict[str, Sized]:
        """The frames in front of each stage."""
        return {"preprocess": self._feeds, **self._pipeline.queues}

    def load(self) -> str:
        """What the status line says of the queues."""
        text = ", ".join(f"{name} {len(queue)}" for name, queue in self._waiting.items())
        away = ", ".join(map(str, self._feeds.away))
        return f"waiting: {text}; dropped {self._feeds.dropped}" + (f"; away: source {away}" if away else "")

    def summary(self, stopped_by: StoppedBy) -> CameraSummary:
        """What the run did; raises SourceError if it came to an end without any frame."""
        sources = tuple(feed.summary(self.seconds, self._delivery.video(feed)) for feed in self._feeds.feeds)
        skipped = tuple(name for source in sources for name in source.skipped)
        frames = self.times.frames
        if stopped_by == "end of source" and not frames:
            names = ", ".join(source.name for source in sources)
            raise SourceError(
                f"{names}: the detector could use none of its {len(skipped)} images; the log names each reason"
            )
        depths = {name: queue.depth() for name, queue in self._pipeline.queues.items()}
        return CameraSummary(
            frames=frames,
            skipped=skipped,
            reconnects=sum(source.reconnects for source in sources),
            seconds=self.seconds,
            fps=rate(frames, self.seconds),
            stage_ms=self.times.mean_ms(),
            stopped_by=stopped_by,
            output=sources[0].output if len(sources) == 1 else None,
            json_lines=self._delivery.json_lines,
            dropped=self._feeds.dropped,
            invalid=sum(source.invalid for source in sources),
            latency_ms=self.latency.to_dict(),
            queues={"preprocess": self._feeds.depth(), **depths},
            sources=sources,
        )


def _ms_since(start: float) -> float:
    return 1000 * (time.perf_counter() - start)
