"""The annotated JPEGs of a page: drawn and encoded once for all who watch, and not at all while nobody does."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace

import numpy as np

from gfl_edge import optional
from gfl_edge.detections import Detections
from gfl_edge.errors import InputError
from gfl_edge.filters.draw import draw_regions
from gfl_edge.media.draw import draw_detections, fitted
from gfl_edge.web.live import Live, LiveFrame, Run

IMAGES_PER_SECOND = 15.0  # of a source, at one score and size
SIDES = {"small": 640, "large": 1280, "full": None}  # longest side in pixels
QUALITY, SNAPSHOT_QUALITY = 80, 95  # of JPEG
MAX_KINDS = 64  # of image that are kept
LOOK_SECONDS = 0.02  # between looks at whether there is a newer frame


@dataclass(frozen=True)
class Kind:
    """What is asked for: a source, drawn from a score on, None = as the run, in one of ``SIDES``."""

    source: int
    score: float | None
    side: str


@dataclass(frozen=True)
class Encoded:
    """A JPEG, and the number of the frame that it shows."""

    number: int
    jpeg: bytes


@dataclass(eq=False)
class _Slot:
    """The newest image of a kind."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    image: Encoded | None = None
    of: LiveFrame | None = None
    made_s: float = 0.0


class Images:
    """Images of a run's frames, for the page's event loop.

    All that watch the same share an image, which is made no more often than ``IMAGES_PER_SECOND``.

    Args:
        live: where the frames are.
        work: where drawing and encoding happen, one after the other.
    """

    def __init__(self, live: Live, work: Executor) -> None:
        self._live, self._work = live, work
        self._slots: OrderedDict[Kind, _Slot] = OrderedDict()
        self._resting = Resting()

    async def newer(self, kind: Kind, than: int, seconds: float) -> Encoded | None:
        """The newest image if its frame is another than number ``than``; waits for one up to ``seconds``, else None."""
        until = time.monotonic() + seconds
        while True:
            frame = self._live.frames[kind.source]
            if frame is not None and frame.number != than:
                return await self._newest(kind)
            if self._live.phase == "ended" or time.monotonic() >= until:
                return None
            await asyncio.sleep(LOOK_SECONDS)

    async def _newest(self, kind: Kind) -> Encoded | None:
        slot = self._slots.setdefault(kind, _Slot())
        self._slots.move_to_end(kind)
        if len(self._slots) > MAX_KINDS:
            self._slots.popitem(last=False)
        async with slot.lock:  # who comes while it is made gets the same
            if slot.of is not self._live.frames[kind.source]:
                await asyncio.sleep(max(0.0, slot.made_s + 1 / IMAGES_PER_SECOND - time.monotonic()))
                frame, run = self._live.frames[kind.source], self._live.run
                if frame is not None and run is not None and frame is not slot.of:
                    slot.made_s = time.monotonic()
                    make = asyncio.get_running_loop().run_in_executor
                    jpeg = await make(self._work, self._resting.after, lambda: annotated(frame, run, kind))
                    slot.image, slot.of = Encoded(frame.number, jpeg), frame
            return slot.image


class Resting:
    """Work that takes at most half of a core, whoever asks for how much: after each piece it rests for as long."""

    def __init__(self) -> None:
        self._until_s = 0.0

    def after(self, work: Callable[[], bytes]) -> bytes:
        """Rest for what was done before, then do ``work``."""
        time.sleep(max(0.0, self._until_s - time.monotonic()))
        start = time.monotonic()
        try:
            return work()
        finally:
            end = time.monotonic()
            self._until_s = end + (end - start)


def annotated(frame: LiveFrame, run: Run, kind: Kind) -> bytes:
    """A frame as JPEG, with the run's regions and what counts in it from the score on.

    Raises:
        InputError: OpenCV cannot write a JPEG of its size.
    """
    keep, found = run.keep, frame.counts
    if kind.score is not None:  # what counts in the run has gone through its scores, those of single classes among them
        keep, found = replace(run.asked, score=kind.score), identified(frame.found, frame.counts)
    height, width = frame.image.shape[:2]
    counts = keep.apply(found, (height, width), source=kind.source)
    image = draw_regions(frame.image, keep, kind.source)
    image = draw_detections(image, counts, out=None if image is frame.image else image, bands=run.draw_sigma)
    side = SIDES[kind.side]
    if side is not None and max(height, width) > side:
        ratio = side / max(height, width)
        image = fitted(image, (max(1, round(height * ratio)), max(1, round(width * ratio))))
    cv2 = optional.load("cv2")
    quality = [cv2.IMWRITE_JPEG_QUALITY, SNAPSHOT_QUALITY if side is None else QUALITY]
    encoded, content = cv2.imencode(".jpg", image, quality)
    if not encoded:
        raise InputError(f"OpenCV cannot write a JPEG of {width}x{height} pixels")
    return bytes(content)


def identified(found: Detections, counts: Detections) -> Detections:
    """All that was found, with the identities of what counts; what does not count is not followed."""
    if counts.track_ids is None:
        return found
    same = (found.boxes[:, None] == counts.boxes).all(axis=2)
    same &= (found.scores[:, None] == counts.scores) & (found.class_ids[:, None] == counts.class_ids)
    of_found, of_counts = np.nonzero(same)
    tracks = np.full(len(found), -1, np.int64)
    tracks[of_found] = counts.track_ids[of_counts]
    return replace(found, track_ids=tracks)
