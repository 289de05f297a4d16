"""The camera: read, detect, draw and write at the same time, until the sources end or somebody stops it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from gfl_edge.camera.delivery import Delivery, video_path
from gfl_edge.camera.feeds import Feed, Feeds
from gfl_edge.camera.pipeline import Pipeline
from gfl_edge.camera.run import POLL_SECONDS, CameraRun
from gfl_edge.camera.stop_signals import StopSignals
from gfl_edge.camera.summary import CameraSummary, SourceSummary, StoppedBy
from gfl_edge.detections import Detections
from gfl_edge.errors import InputError, SourceError
from gfl_edge.media.sinks import STDOUT, JsonLinesSink, VideoSink, Window, why_no_window
from gfl_edge.media.sources import RECONNECT_SECONDS, Frame, FrameSource, Source

if TYPE_CHECKING:
    from gfl_edge.backends.select import BackendName
    from gfl_edge.detector import Detector

STOP_SECONDS = 1.0  # that a stage has to end in


def run_camera(
    model: str | Path | Detector | None = None,
    source: Source | Sequence[Source] = 0,
    *,
    backend: BackendName = "auto",
    score: float = 0.35,
    show: bool | None = None,
    output: str | Path | None = None,
    json_lines: str | Path | None = None,
    max_frames: int | None = None,
    reconnect_seconds: float = RECONNECT_SECONDS,
    on_frame: Callable[[Frame, Detections], None] | None = None,
) -> CameraSummary:
    """Detect in every frame of one or more sources until they end, a window is closed, or Ctrl-C or SIGTERM arrives.

    Reading, resizing, the network, drawing and writing overlap, so that the slowest of them sets the pace. Files wait
    for it and lose no frame. Of a live source the newest frame is taken and older ones are dropped, so that no picture
    is older than a few times what the slowest stage takes. The frames of a source stay in order.

    Several sources take turns, so that a picture may be older by a turn of the others. An engine that was built for
    batches runs the frames that wait, one of each source, as one. A source that fails is logged and left out, as long
    as another is there.

    A status line on stderr tells frames per second, milliseconds per stage, and how full the queues are. Whatever ends
    the run, an error too, what was written until then is kept and whole; a frame is in all outputs or in none.

    Args:
        model: model file, or a detector, which is left open; None: the detector of persons that comes with the package.
        source: see :func:`gfl_edge.media.sources.open_source`; or several of them. Threads of their own read them and
            close them at the end.
        backend: what runs a model file.
        score: detections with at least this score are drawn, written and handed on.
        show: True = in a window (q, Esc or its close button ends the run), None = in one if there is a screen.
        output: annotated video, ``.mp4`` or ``.avi``. Several sources write one each: ``out-0.mp4``, ``out-1.mp4``, or
            with their number in place of ``{source}``.
        json_lines: file with one JSON object per frame, "-" = stdout: ``source`` (its number), ``frame``, ``name``,
            ``time_s``, ``detections`` as by :meth:`Detections.to_dicts` and ``ms`` with the times until detection.
        max_frames: stop after so many, of all sources together.
        reconnect_seconds: how long to try after a camera or stream drops; 0 = not at all.
        on_frame: called with every frame and its detections, after they were written; in the caller's thread.

    Raises:
        SourceError: the source, or every one of several, cannot be opened, is lost for good, or has no picture that can
            be used.
        InputError: a setting, an output that cannot be written, or a window without a screen.
        ModelFileError, BackendError: the model cannot be used.
        FrameError: the detector refuses a frame of a camera or video; pictures are skipped and counted instead.
    """
    sources = _listed(source)
    _check_settings(score, max_frames, sources, output, json_lines)
    with ExitStack() as stack:
        stop = stack.enter_context(StopSignals())
        window = _window(show)
        detector = stack.enter_context(_opened(model, backend))
        batch = min(len(sources), detector.backend.max_batch or 1)  # CPUs, which take any, gain nothing from it
        stop.disarm()
        # After the model, as frames would be dropped while it loads
        feeds = Feeds(sources, reconnect_seconds, batch, max_frames)
        stack.callback(feeds.join, STOP_SECONDS)
        while not feeds.open(POLL_SECONDS):
            if stop.requested:
                raise KeyboardInterrupt
        pipeline = Pipeline()
        stack.callback(pipeline.join, STOP_SECONDS)
        lines = stack.enter_context(JsonLinesSink(json_lines)) if json_lines else None
        video = Path(output) if output else None
        delivery = stack.enter_context(
            Delivery(video, lines, stack.enter_context(window) if window else None, len(sources))
        )
        run = CameraRun(detector, feeds, pipeline, delivery, score, on_frame)
        stack.enter_context(run.status)
        start = time.perf_counter()
        stopped_by = run.until_it_ends(stop)
        seconds = time.perf_counter() - start
    return _summary(run, feeds, delivery, stopped_by, seconds, json_lines)


def _summary(
    run: CameraRun,
    feeds: Feeds,
    delivery: Delivery,
    stopped_by: StoppedBy,
    seconds: float,
    json_lines: str | Path | None,
) -> CameraSummary:
    """What the run did; raises SourceError if it came to an end without any frame."""
    sources = tuple(_source_summary(feed, delivery, seconds) for feed in feeds.feeds)
    skipped = tuple(name for source in sources for name in source.skipped)
    frames = run.clock.frames
    if stopped_by == "end of source" and not frames:
        names = ", ".join(source.name for source in sources)
        raise SourceError(
            f"{names}: the detector could use none of its {len(skipped)} images; the log names each reason"
        )
    return CameraSummary(
        frames=frames,
        skipped=skipped,
        reconnects=sum(source.reconnects for source in sources),
        seconds=seconds,
        fps=_rate(frames, seconds),
        stage_ms=run.clock.mean_ms(),
        stopped_by=stopped_by,
        output=sources[0].output if len(sources) == 1 else None,
        json_lines=str(json_lines) if json_lines else None,
        dropped=feeds.dropped,
        latency_ms=run.latency.to_dict(),
        queues=run.queues(),
        sources=sources,
    )


def _source_summary(feed: Feed, delivery: Delivery, seconds: float) -> SourceSummary:
    return SourceSummary(
        name=feed.name,
        frames=feed.delivered,
        dropped=feed.inbox.dropped,
        fps=_rate(feed.delivered, seconds),
        latency_ms=feed.latency.to_dict(),
        skipped=feed.skipped,
        reconnects=feed.reconnects,
        error=None if feed.error is None else str(feed.error),
        output=delivery.video(feed),
    )


def _rate(frames: int, seconds: float) -> float:
    return frames / seconds if seconds > 0 else 0.0


def _listed(source: Source | Sequence[Source]) -> list[Source]:
    sources: list[Source] = [source] if isinstance(source, (int, str, Path, FrameSource)) else list(source)
    if not sources:
        raise InputError("no source: give a camera number, file, folder, URL or pipeline, or several of them")
    return sources


def _check_settings(
    score: float,
    max_frames: int | None,
    sources: Sequence[Source],
    output: str | Path | None,
    json_lines: str | Path | None,
) -> None:
    if not 0 <= score <= 1:
        raise InputError(f"score {score}: expected 0..1")
    if max_frames is not None and max_frames < 1:
        raise InputError(f"max_frames {max_frames}: expected 1 or more, or None for all")
    videos = [video_path(Path(output), i, len(sources)) for i in range(len(sources))] if output else []
    for video in videos:
        VideoSink(video, None)  # a wrong suffix is told before the model is loaded
    lines = [Path(json_lines)] if json_lines and str(json_lines) != STDOUT else []
    files = [path.resolve() for path in (*videos, *lines)]
    if len(set(files)) < len(files):
        raise InputError(f"{json_lines} is to hold both a video and the detections: give two files")
    for source in sources:
        if isinstance(source, (str, Path)) and Path(source).resolve() in files:
            raise InputError(f"{source} is the source and would be written over: choose another output file")


def _window(show: bool | None) -> Window | None:
    """A window if one is wanted; raises InputError if it is demanded and cannot be opened."""
    if show is False:
        return None
    reason = why_no_window()
    if reason is None:
        return Window("gfl_edge: q or Esc to quit")
    if show:
        raise InputError(f"no window can be opened: {reason}. Or run without one (--headless, show=False)")
    return None


@contextmanager
def _opened(model: str | Path | Detector | None, backend: BackendName) -> Iterator[Detector]:
    """A detector, which is closed if it was opened here."""
    if not (model is None or isinstance(model, (str, Path))):
        yield model
        return
    from gfl_edge.detector import Detector

    with Detector(model, backend) as detector:
        yield detector
