"""The camera loop: read, detect, draw, write, until the source ends or somebody stops it."""

from __future__ import annotations

import dataclasses
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal, TextIO

from gfl_edge.detections import Detections
from gfl_edge.draw import draw_detections, draw_status
from gfl_edge.errors import FrameError, InputError, SourceError
from gfl_edge.sinks import STDOUT, JsonLinesSink, VideoSink, Window, why_no_window
from gfl_edge.sources import RECONNECT_SECONDS, Frame, FrameSource, PictureFiles, open_source

if TYPE_CHECKING:
    from gfl_edge.backends.select import BackendName
    from gfl_edge.detector import Detector

StoppedBy = Literal["end of source", "interrupt", "user", "max_frames"]

STAGES = ("read", "preprocess", "network", "postprocess", "draw", "write")
RECENT_SECONDS = 2.0  # over which the status averages
REDRAW_SECONDS, LOG_SECONDS = 0.5, 10.0  # between status lines, on a terminal and elsewhere


@dataclass(frozen=True)
class CameraSummary:
    """What a run of the camera loop did.

    Attributes:
        frames: frames that were detected in.
        skipped: names of pictures that could not be used.
        reconnects: how often a live source was opened again.
        seconds: from the first read to the last write, without loading the model.
        fps: frames / seconds.
        stage_ms: mean milliseconds a frame spent in each of ``STAGES``.
        stopped_by: why it ended; "user" closed the window, "interrupt" is Ctrl-C or SIGTERM.
        output: the annotated video; None if none was asked for or no frame came.
        json_lines: the file of detections, "-" for stdout; None if none was asked for.
    """

    frames: int
    skipped: tuple[str, ...]
    reconnects: int
    seconds: float
    fps: float
    stage_ms: dict[str, float]
    stopped_by: StoppedBy
    output: Path | None
    json_lines: str | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**dataclasses.asdict(self), "output": None if self.output is None else str(self.output)}


def run_camera(
    model: str | Path | Detector,
    source: int | str | Path = 0,
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
    """Detect in every frame of a source until it ends, a window is closed, or Ctrl-C or SIGTERM arrives.

    A status line on stderr tells frames per second and milliseconds per stage. Whatever ends the run, an error too,
    what was written until then is kept and whole.

    Args:
        model: model file, or a detector, which is left open.
        source: see :func:`gfl_edge.sources.open_source`.
        backend: what runs a model file.
        score: detections with at least this score are drawn, written and handed on.
        show: True = in a window (q, Esc or its close button ends the run), None = in one if there is a screen.
        output: annotated video, ``.mp4`` or ``.avi``.
        json_lines: file with one JSON object per frame, "-" = stdout: ``frame``, ``name``, ``time_s``, ``detections``
            as by :meth:`Detections.to_dicts` and ``ms`` with the times until detection.
        max_frames: stop after so many.
        reconnect_seconds: how long to try after a camera or stream drops; 0 = not at all.
        on_frame: called with every frame and its detections, after they were written.

    Raises:
        SourceError: the source cannot be opened, is lost for good, or has no picture that can be used.
        InputError: a setting, an output that cannot be written, or a window without a screen.
        ModelFileError, BackendError: the model cannot be used.
        FrameError: the detector refuses a frame of a camera or video; pictures are skipped and counted instead.
    """
    _check_settings(score, max_frames, source, output, json_lines)
    with ExitStack() as stack:
        stop = stack.enter_context(StopSignals())
        window = _window(show)
        detector = stack.enter_context(_opened(model, backend))
        # After the model, as frames would queue up while it loads, and a stream would lag for good
        frames = stack.enter_context(open_source(source, reconnect_seconds=reconnect_seconds))
        outputs = _Outputs(
            video=stack.enter_context(VideoSink(output, frames.fps, measure=frames.live)) if output else None,
            lines=stack.enter_context(JsonLinesSink(json_lines)) if json_lines else None,
            window=stack.enter_context(window) if window else None,
        )
        status = stack.enter_context(StatusLine(frames.total))
        loop = _Loop(detector, frames, outputs, status, score, on_frame)
        start = time.perf_counter()
        stopped_by = loop.run(stop, max_frames)
        seconds = time.perf_counter() - start
    clock, video = loop.clock, outputs.video
    if stopped_by == "end of source" and not clock.frames:
        raise SourceError(
            f"{frames.name}: the detector could use none of its {len(frames.skipped)} images; the log names each reason"
        )
    return CameraSummary(
        frames=clock.frames,
        skipped=tuple(frames.skipped),
        reconnects=frames.reconnects,
        seconds=seconds,
        fps=clock.frames / seconds if seconds > 0 else 0.0,
        stage_ms=clock.mean_ms(),
        stopped_by=stopped_by,
        output=video.path if video and video.frames else None,
        json_lines=str(json_lines) if json_lines else None,
    )


class StageClock:
    """Milliseconds of each stage: the mean of all frames, and of those in the last two seconds."""

    def __init__(self) -> None:
        self.frames = 0
        self._sums = dict.fromkeys(STAGES, 0.0)
        self._recent: deque[tuple[float, dict[str, float]]] = deque()

    def add(self, ms: dict[str, float]) -> None:
        """Count a frame with its milliseconds of all ``STAGES``."""
        self.frames += 1
        for stage in STAGES:
            self._sums[stage] += ms[stage]
        now = time.monotonic()
        self._recent.append((now, ms))
        while len(self._recent) > 2 and now - self._recent[0][0] > RECENT_SECONDS:
            self._recent.popleft()

    def mean_ms(self) -> dict[str, float]:
        """Mean milliseconds by stage over all frames."""
        return {stage: total / max(1, self.frames) for stage, total in self._sums.items()}

    def recent_ms(self) -> dict[str, float]:
        """Mean milliseconds by stage over the last two seconds."""
        count = max(1, len(self._recent))
        return {stage: sum(ms[stage] for _, ms in self._recent) / count for stage in STAGES}

    def recent_fps(self) -> float:
        """Frames per second over the last two seconds; 0 until there are two frames."""
        seconds = self._recent[-1][0] - self._recent[0][0] if self._recent else 0.0
        return (len(self._recent) - 1) / seconds if seconds > 0 else 0.0


class StatusLine:
    """One line on stderr that renews itself on a terminal; a line now and then elsewhere.

    Args:
        total: number of frames, if known.
        stream: where to write; default stderr.
    """

    def __init__(self, total: int | None, stream: TextIO | None = None) -> None:
        self._of_total = "" if total is None else f"/{total}"
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._drawn = time.monotonic()
        self._last = ""

    def update(self, frame: Frame, clock: StageClock) -> None:
        """Renew the line if it is time."""
        now = time.monotonic()
        if now - self._drawn >= (REDRAW_SECONDS if self._live else LOG_SECONDS):
            self._drawn = now
            self._draw(frame, clock)

    def _draw(self, frame: Frame, clock: StageClock) -> None:
        ms = ", ".join(f"{stage} {value:.1f}" for stage, value in clock.recent_ms().items())
        self._last = f"frame {frame.index + 1}{self._of_total}, {clock.recent_fps():.1f} FPS; ms: {ms}"
        self._stream.write(f"\r{self._last}\x1b[K" if self._live else f"{self._last}\n")
        self._stream.flush()

    def close(self) -> None:
        """End the line."""
        if self._live and self._last:
            self._stream.write("\n")
            self._stream.flush()

    def __enter__(self) -> StatusLine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class StopSignals:
    """While entered, the first Ctrl-C or SIGTERM raises KeyboardInterrupt, and later ones do not disturb the closing.

    Only the main thread can do so; elsewhere nothing changes. A Ctrl-C handler of the application's own is left alone.

    Attributes:
        requested: whether a signal came.
    """

    def __init__(self) -> None:
        self.requested = False
        self._armed = True
        self._previous: dict[signal.Signals, Any] = {}

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Within, a signal only sets ``requested``, so that a frame is in all outputs or in none."""
        self._armed = False
        yield
        self._armed = True

    def disarm(self) -> None:
        """From now on signals do not raise any more."""
        self._armed = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        if self._armed:
            self._armed = False
            raise KeyboardInterrupt

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                self._previous[signal.SIGINT] = signal.signal(signal.SIGINT, self._handle)
            self._previous[signal.SIGTERM] = signal.signal(signal.SIGTERM, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, previous in self._previous.items():
            signal.signal(number, signal.SIG_DFL if previous is None else previous)  # None: set by C code


@dataclass(frozen=True)
class _Outputs:
    video: VideoSink | None
    lines: JsonLinesSink | None
    window: Window | None


class _Loop:
    """The stages one after the other; each hands plain values to the next, so that they could overlap."""

    def __init__(
        self,
        detector: Detector,
        source: FrameSource,
        outputs: _Outputs,
        status: StatusLine,
        score: float,
        on_frame: Callable[[Frame, Detections], None] | None,
    ) -> None:
        self.clock = StageClock()
        self._detector, self._source, self._outputs = detector, source, outputs
        self._status, self._score, self._on_frame = status, score, on_frame

    def run(self, stop: StopSignals, max_frames: int | None) -> StoppedBy:
        """Go through the source; every way out but an error is returned."""
        frames = iter(self._source)
        try:
            while not stop.requested:
                start = time.perf_counter()
                frame = next(frames, None)
                if frame is None:
                    return "end of source"
                read_ms = _ms_since(start)
                detections = self._detect(frame)
                if detections is None:
                    continue
                with stop.deferred():
                    shown = self._deliver(frame, detections, {"read": read_ms, **self._detector.last_ms})
                if self._on_frame is not None:
                    self._on_frame(frame, detections)
                if not shown:
                    return "user"
                if self.clock.frames == max_frames:
                    return "max_frames"
        except KeyboardInterrupt:
            pass
        finally:
            stop.disarm()
        return "interrupt"

    def _detect(self, frame: Frame) -> Detections | None:
        """The detections that count; None for a picture that the detector refuses."""
        try:
            return self._detector(frame.image).above(self._score)
        except FrameError as error:
            if not isinstance(self._source, PictureFiles):
                raise
            self._source.skip(frame.name, str(error))
            return None

    def _deliver(self, frame: Frame, detections: Detections, ms: dict[str, float]) -> bool:
        """Draw and write; False when the user has closed the window."""
        video, lines, window = self._outputs.video, self._outputs.lines, self._outputs.window
        start = time.perf_counter()
        image = draw_detections(frame.image, detections) if video or window else frame.image
        draw_ms = _ms_since(start)
        start = time.perf_counter()
        if lines:
            lines.write(_record(frame, detections, ms))
        if video:
            video.write(image, frame.time_s)
        shown = window is None or window.show(draw_status(image, self._window_text(ms)))
        self.clock.add({**ms, "draw": draw_ms, "write": _ms_since(start)})
        self._status.update(frame, self.clock)
        return shown

    def _window_text(self, ms: dict[str, float]) -> str:
        return f"{self.clock.recent_fps():.1f} FPS, network {ms['network']:.1f} ms ({self._detector.backend.name})"


def _record(frame: Frame, detections: Detections, ms: dict[str, float]) -> dict[str, Any]:
    return {
        "frame": frame.index,
        "name": frame.name,
        "time_s": round(frame.time_s, 6),
        "detections": detections.to_dicts(),
        "ms": {stage: round(value, 3) for stage, value in ms.items()},
    }


def _check_settings(
    score: float,
    max_frames: int | None,
    source: int | str | Path,
    output: str | Path | None,
    json_lines: str | Path | None,
) -> None:
    if not 0 <= score <= 1:
        raise InputError(f"score {score}: expected 0..1")
    if max_frames is not None and max_frames < 1:
        raise InputError(f"max_frames {max_frames}: expected 1 or more, or None for all")
    if output:
        VideoSink(output, None)  # a wrong suffix is told before the model is loaded
    files = [Path(path).resolve() for path in (output, json_lines) if path and str(path) != STDOUT]
    if len(set(files)) < len(files):
        raise InputError(f"{output} is to hold both the video and the detections: give two files")
    if not isinstance(source, int) and Path(source).resolve() in files:
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
def _opened(model: str | Path | Detector, backend: BackendName) -> Iterator[Detector]:
    """A detector, which is closed if it was opened here."""
    if not isinstance(model, (str, Path)):
        yield model
        return
    from gfl_edge.detector import Detector

    with Detector(model, backend) as detector:
        yield detector


def _ms_since(start: float) -> float:
    return 1000 * (time.perf_counter() - start)
