"""Objects followed from frame to frame, by norfair with Kalman filters whose noise is what the model says of edges.

Of the libraries that follow objects, this one (norfair-enough, the maintained fork of norfair, BSD-3-Clause) runs with
NumPy 1 and 2 and brings no OpenCV. Its filter takes the noise of each measurement.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gfl_edge import optional
from gfl_edge.detections import Detections
from gfl_edge.ops.boxes import Floats, pairwise_iou
from gfl_edge.parsing.numbers import whole_number

MEMORY_FRAMES = 15  # that an object may be out of sight
FIRST_FRAMES = 3  # in which an object has to be seen before it has an identity; what is seen once is often nothing
MIN_IOU = 0.1  # of an object, where it is expected, with a box
GAP_S = 3.0  # without a frame, after which everybody may be somebody else
GAP_STEPS = 3.0  # likewise, where frames come rarely: so many times the time between the two before
# The variance that the filter is told, as a share of that of an edge, and in square pixels where the model gives none:
# less than the errors have, as objects also turn, stop and start. By what switches least (benchmarks/tracking)
SIGMA_SHARE, NO_SIGMA = 0.05, 1.0
MIN_VARIANCE = 0.01


class ObjectTracker:
    """Follows the objects of one source. An identity is of one class, and never given again.

    Args:
        memory_frames: how many frames an object may be out of sight and keep its identity.

    Raises:
        InputError: ``memory_frames`` is no whole number from 1 on.
        MissingDependencyError: norfair is not installed.
    """

    def __init__(self, memory_frames: int = MEMORY_FRAMES) -> None:
        self._memory = whole_number("memory_frames", memory_frames, 1, 10**6)
        self._variances: dict[bytes, NDArray[np.float64]] = {}
        self._given, self._time_s, self._step_s = 0, -np.inf, 0.0
        self._start()

    def _start(self) -> None:
        """Know nobody."""
        norfair = optional.load("norfair")
        self._norfair = norfair.Tracker(
            distance_function="iou",
            distance_threshold=1 - MIN_IOU,
            hit_counter_max=max(self._memory, FIRST_FRAMES),
            initialization_delay=FIRST_FRAMES - 1,
            filter_factory=_filters(self._variances),
            past_detections_length=0,
        )
        # norfair's own warns in the log where the expected box has no area
        self._norfair.distance_function = norfair.distances.VectorizedDistance(_distances)

    def update(self, found: Detections, time_s: float | None = None) -> Detections:
        """The objects of the next frame, in their order, with identities from 1 on, and -1 of those that have none yet.

        Args:
            found: of the frame, those that are followed.
            time_s: of the frame, in seconds; after a gap of more than ``GAP_S``, and of more than ``GAP_STEPS`` times
                the step before it, nobody is known any more.
        """
        if time_s is not None:
            step_s = time_s - self._time_s
            if step_s > max(GAP_S, GAP_STEPS * self._step_s):
                self._forget()
            self._time_s, self._step_s = time_s, step_s if np.isfinite(step_s) else 0.0
        boxes = found.boxes.astype(np.float64)
        self._variances.clear()
        self._variances.update(zip(map(_key, boxes), _variances(found), strict=True))
        make = optional.load("norfair").Detection
        objects = self._norfair.update(
            [
                make(box.reshape(2, 2), data=index, label=int(class_id))
                for index, (box, class_id) in enumerate(zip(boxes, found.class_ids, strict=True))
            ]
        )
        tracks = np.full(len(found), -1, np.int64)
        for one in objects:
            if one.last_detection.age == one.age:  # seen in this frame
                tracks[one.last_detection.data] = self._given + one.id
        return replace(found, track_ids=tracks)

    def _forget(self) -> None:
        if self._norfair.total_object_count:
            self._given += self._norfair.total_object_count
            self._start()


def _distances(candidates: NDArray[np.float64], objects: NDArray[np.float64]) -> Floats:
    """1 - IoU ``[n, m]`` of boxes ``[n, 4]`` and ``[m, 4]``, of which the latter may be inside out."""
    return 1 - pairwise_iou(candidates.astype(np.float32), objects.astype(np.float32))


def _variances(found: Detections) -> NDArray[np.float64]:
    """Of the measured edges, square pixels ``[n, 4]``."""
    if found.edge_sigma is None:
        return np.full((len(found), 4), NO_SIGMA)
    return np.maximum(SIGMA_SHARE * found.edge_sigma.astype(np.float64) ** 2, MIN_VARIANCE)


def _key(box: NDArray[np.float64]) -> bytes:
    return box.tobytes()


def _filters(variances: dict[bytes, NDArray[np.float64]]) -> Any:
    """norfair's filters, each measurement with the variances that ``variances`` has for its box.

    norfair gives a filter the box alone, but the filter would take more.
    """

    class Filter(optional.load("norfair.filter").OptimizedKalmanFilter):  # type: ignore[misc]
        def update(self, box: NDArray[np.float64], R: Any = None, H: Any = None) -> None:  # noqa: N803  norfair's names
            noise = variances.get(_key(box))
            super().update(box, R if noise is None else np.diag(noise), H)

    class Filters(optional.load("norfair.filter").OptimizedKalmanFilterFactory):  # type: ignore[misc]
        def create_filter(self, box: NDArray[np.float64]) -> Filter:
            made = Filter(2 * box.size, box.size)
            made.x[: box.size] = box.reshape(-1, 1)
            return made

    return Filters()
