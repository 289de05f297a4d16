"""Video that GStreamer sends or writes: to a server, over a network, into a file by an encoder of the user's choice.

The pipeline runs in a process of its own (:mod:`gfl_edge.media.stream_process`), fed by a thread of its own, so that
one that fails or hangs holds up nothing else.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import Literal

import numpy as np

from gfl_edge.errors import InputError, OutputError
from gfl_edge.media.capture import MAX_DELAY_S, MIN_DELAY_S
from gfl_edge.media.draw import fitted
from gfl_edge.media.pace import Pace
from gfl_edge.media.stream_child import OPEN_SECONDS, STALL_SECONDS
from gfl_edge.media.stream_process import BrokenPipelineError, PipelineProcess
from gfl_edge.media.targets import StreamTarget
from gfl_edge.ops.preprocess import Image

# In which the end of a file has to be written, and that of a stream be sent
FINISH_SECONDS, FINISH_STREAM_SECONDS = 15, 3
WAITING = 2  # images on their way to the pipeline: a stream is not to show old ones
# Of a live source on their way to a file, in which none is to be missing because the pipeline took a moment to start
MAX_FILE_WAITING, FILE_WAITING_BYTES = 60, 128 << 20
# A pipeline that took so many images in so long works; what is broken takes some into its queues, too
STEADY_FRAMES, STEADY_SECONDS = 30, 5.0

logger = logging.getLogger(__name__)

State = Literal["new", "open", "away", "over"]


class StreamSink:
    """An annotated video that goes into a GStreamer pipeline. All frames get the size of the first, as in a file;
    up to three columns and a row are cut off, which pipelines cannot take.

    The images of a live source are dropped where the pipeline does not keep up, at once where it sends them somewhere;
    those of a file wait for it. A pipeline that fails on the way is tried again where that can help, and else given up;
    frames go on without it.

    Args:
        target: the pipeline.
        fps, measure, hold: see :class:`gfl_edge.media.pace.Pace`.
        live: whether images are dropped rather than waited for.
        reconnect_seconds: how long to try again after it failed; 0 = not at all.

    Attributes:
        path: its name, without passwords.
        frames: that came.
        dropped: images that did not go into the pipeline.
        error: why it was given up; None if it was not.
    """

    def __init__(
        self,
        target: StreamTarget,
        fps: float | None,
        *,
        measure: bool = False,
        hold: bool = False,
        live: bool = False,
        reconnect_seconds: float = 0.0,
    ) -> None:
        self.path, self.frames, self.dropped = target.name, 0, 0
        self.error: OutputError | None = None
        self._target, self._live, self._seconds = target, live, reconnect_seconds
        self._pace = Pace(fps, measure=measure, hold=hold)
        self._size_hw = (0, 0)
        self._waiting: deque[Image] = deque()
        self._changed = threading.Condition()
        self._state: State = "new"
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._process: PipelineProcess | None = None
        self._lost_s: float | None = None  # since when it does not work
        self._unsaid: OutputError | None = None  # why it was never started
        self._delay_s = MIN_DELAY_S

    def expect(self, image: Image) -> None:
        """Raise as :meth:`write` does if it would, before ``image`` is in any other output."""
        if self._pace.known:
            self._begin(image)

    def write(self, image: Image, time_s: float) -> None:
        """Hand ``image`` over (uint8 ``[H, W, 3]`` BGR, kept for a while: do not change it), taken at ``time_s``.

        Raises:
            InputError: the pipeline is broken, or cannot be started where another attempt would not help. By the first
                image that goes into it; of a live source, which does not wait for that, by the first after it is known.
        """
        self.frames += 1
        for due in self._pace.images(image, time_s):
            self._hand_over(due)

    def close(self) -> None:
        """Let the pipeline write what it holds, and end it.

        Raises:
            OutputError: it could not be finished, so that what it wrote may not be whole.
        """
        worked = self.error is None
        try:
            for due in self._pace.rest():
                self._hand_over(due)
        finally:
            self._end()
        self._check_that_it_started()
        if worked and self.error is not None and not self._target.repeats:
            raise self.error

    def _begin(self, image: Image) -> None:
        """Start the pipeline for images of this size, if it is not yet; a file waits for it, a live source must not."""
        if self._thread is None:
            self._size_hw = self._cut(image)
            self._thread = threading.Thread(target=self._run, name=f"gfl_edge stream {self.path}", daemon=True)
            self._thread.start()
            if not self._live:
                with self._changed:
                    self._changed.wait_for(lambda: self._state != "new", OPEN_SECONDS + 5)
        self._check_that_it_started()

    def _check_that_it_started(self) -> None:
        error, self._unsaid = self._unsaid, None
        if error is not None:
            raise InputError(str(error)) from error

    def _cut(self, image: Image) -> tuple[int, int]:
        """The size of an image in the pipeline: OpenCV hands over rows of whole 4 pixels only, H.264 has even sizes."""
        height, width = image.shape[:2]
        return max(2, height // 2 * 2) if self._target.even else height, max(4, width // 4 * 4)

    def _hand_over(self, image: Image) -> None:
        self._begin(image)
        height, width = self._size_hw
        if self._cut(image) == self._size_hw:
            image = image[:height, :width]
        ready = np.ascontiguousarray(fitted(image, self._size_hw))
        with self._changed:
            if not self._live:
                self._changed.wait_for(
                    lambda: len(self._waiting) < WAITING or self._state != "open", OPEN_SECONDS + STALL_SECONDS
                )
            if self._state == "over":
                self.dropped += 1
                return
            if len(self._waiting) >= self._capacity(ready):
                self._waiting.popleft()
                self.dropped += 1
            self._waiting.append(ready)
            self._changed.notify_all()

    def _capacity(self, image: Image) -> int:
        if self._target.repeats or not self._live:
            return WAITING
        return max(WAITING, min(MAX_FILE_WAITING, FILE_WAITING_BYTES // image.nbytes))

    def _end(self) -> None:
        with self._changed:
            self._ended.set()
            self._changed.notify_all()
        if self._state == "away" and self._process is not None:
            self._process.kill()
        if self._thread is not None:
            self._thread.join(STALL_SECONDS + FINISH_SECONDS)
            if self._thread.is_alive() and self._process is not None:
                self._process.kill()
                self._thread.join(1)
        if self.dropped:
            logger.info("%s: %d of %d images were not sent", self.path, self.dropped, self.frames)

    def _run(self) -> None:
        """The thread: one pipeline after the other, until one is finished or there is no hope."""
        try:
            while True:
                try:
                    return self._feed()
                except OutputError as error:
                    left = self._left(error)
                    self._ended.wait(min(self._delay_s, left))
                    self._delay_s = min(2 * self._delay_s, MAX_DELAY_S)
                    if left <= 0 or self._ended.is_set():
                        return self._give_up(error)
        finally:
            self._enter("over")

    def _feed(self) -> None:
        """Start a pipeline and feed it until the end; raises OutputError where it fails."""
        process = self._process = PipelineProcess(FINISH_STREAM_SECONDS if self._target.repeats else FINISH_SECONDS)
        try:
            process.start(self._target.pipeline, self._pace.rate, self._size_hw)
            self._enter("open")
            start, count = time.monotonic(), 0
            while (image := self._next()) is not None:
                process.write(image)
                count += 1
                if self._lost_s is not None and count >= STEADY_FRAMES and time.monotonic() - start >= STEADY_SECONDS:
                    self._lost_s, self._delay_s = None, MIN_DELAY_S
                    logger.warning("output %s is back", self.path)
            process.finish()
        finally:
            process.kill()

    def _next(self) -> Image | None:
        """The next image; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ended.is_set())
            image = self._waiting.popleft() if self._waiting else None
            self._changed.notify_all()
            return image

    def _left(self, error: OutputError) -> float:
        """Seconds that are left for other attempts."""
        now = time.monotonic()
        if (
            isinstance(error, BrokenPipelineError)
            or not (self._target.repeats and self._seconds)
            or self._ended.is_set()
        ):
            return 0.0
        if self._lost_s is None:
            logger.warning("output %s failed: %s; trying again for %g s", self.path, error, self._seconds)
        self._lost_s = self._lost_s or now
        self._enter("away")
        return self._lost_s + self._seconds - now

    def _give_up(self, error: OutputError) -> None:
        first = self._state == "new"
        kind = "cannot be started" if first else "is given up"
        self.error = OutputError(f"output {self.path} {kind}: {error}")
        if first:
            self._unsaid = self.error
        else:
            logger.warning("%s; the run goes on without it", self.error)

    def _enter(self, state: State) -> None:
        with self._changed:
            self._state = state
            if state != "open":
                self.dropped += len(self._waiting)
                self._waiting.clear()
            self._changed.notify_all()

    def __enter__(self) -> StreamSink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
