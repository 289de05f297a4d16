"""Which images a video of one steady rate takes, of frames that come when they come."""

from __future__ import annotations

import numpy as np

from gfl_edge.media.sources import FALLBACK_FPS
from gfl_edge.ops.preprocess import Image

MEASURED_FRAMES = 10  # of a live source; they wait in memory until its rate is known
MAX_HOLD_S = 10.0  # longer gaps in a recording are shortened


class Pace:
    """Takes frames with their times, and gives the images to write.

    Args:
        fps: frames per second; None = 30.
        measure: take the rate from the first frames' times instead, because a loop that is slower than its camera would
            make a video that plays too fast.
        hold: repeat a frame, for ``MAX_HOLD_S`` at most, until the next one's time has come, so that the video plays as
            fast as one whose rate varies. No frame is left out.
    """

    def __init__(self, fps: float | None, *, measure: bool = False, hold: bool = False) -> None:
        self._fps = fps or FALLBACK_FPS
        self._waiting: list[Image] | None = [] if measure else None
        self._times: list[float] = []
        self._hold, self._start_s, self._given = hold, 0.0, 0
        self._last: Image | None = None  # while frames are held

    @property
    def known(self) -> bool:
        """Whether the rate is known, and images are given as they come."""
        return self._waiting is None

    @property
    def rate(self) -> float:
        """Frames per second: Motion JPEG counts whole ones from 1, and hundredths are finer than any clock here."""
        return max(1.0, round(self._fps, 2))

    def images(self, image: Image, time_s: float) -> list[Image]:
        """What to write now that ``image`` came, taken at ``time_s`` seconds."""
        if self._waiting is None:
            held = self._held_until(time_s) if self._hold else []
            self._last = image if self._hold else None
            self._given += len(held) + 1
            return [*held, image]
        self._waiting.append(image)
        self._times.append(time_s)
        return self.rest() if len(self._waiting) == MEASURED_FRAMES else []

    def rest(self) -> list[Image]:
        """What waited for the rate, which is known from now on."""
        waiting, self._waiting = self._waiting or [], None
        if len(waiting) > 2:
            interval = float(np.median(np.diff(self._times)))  # not the mean: the first frame takes long
            self._fps = min(max(1 / interval, 1.0), 240.0) if interval > 0 else self._fps
        return waiting

    def _held_until(self, time_s: float) -> list[Image]:
        """The last image, as often as it is repeated where the next comes later than the rate has it."""
        if self._last is None:
            self._start_s = time_s
            return []
        late = int((time_s - self._start_s) * self.rate - self._given + 0.25)  # clocks count in milliseconds
        held = min(late, round(MAX_HOLD_S * self.rate))
        self._start_s += max(0, late - held) / self.rate
        return [self._last] * held
