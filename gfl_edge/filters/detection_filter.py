"""The filter that says which detections are drawn, written and handed on."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from gfl_edge.detections import Detections
from gfl_edge.errors import InputError
from gfl_edge.filters.polygons import Doubles, inside, share_inside
from gfl_edge.filters.regions import Region
from gfl_edge.ops.boxes import MAX_COORDINATE
from gfl_edge.parsing.numbers import number
from gfl_edge.parsing.validation import shown

Mask = NDArray[np.bool_]
# What of a box has to lie in a region: its center, the middle of its lower edge, or a share of its area
Anchor = Literal["center", "bottom"]
MAX_NAMED = 10  # classes in a message


class Recommending(Protocol):
    """What a filter asks a model's description, such as :class:`gfl_edge.spec.ModelSpec`."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of all classes."""

    @property
    def shown_score(self) -> float:
        """From which on detections are worth showing."""

    @property
    def class_scores(self) -> tuple[float, ...] | None:
        """Of each class, where such were stored."""

    def require_sigmas(self, what: str) -> None:
        """Raise InputError where it gives no standard deviations of edges."""


@dataclass(frozen=True)
class DetectionFilter:
    """Which detections count. Every condition has to hold; without any, all count.

        keep = DetectionFilter(classes=("person", "car"), class_scores={"person": 0.5})
        found = keep.for_model(detector.spec).apply(detector(frame), frame.shape[:2])

    Attributes:
        score: from which on detections count; None: what the model recommends, see :meth:`for_model`.
        class_scores: for some classes another one, by name.
        classes: names of those that count; empty: all.
        regions: polygons; what lies in none of them does not count. Empty: the whole frame.
        excluded: polygons; what lies in one of them does not count.
        region_by: what of a box has to lie in a region: its "center", the middle of its lower edge ("bottom", where
            people and cars touch the ground), or a share of its area, more than 0 and up to 1, by one region alone.
        min_size: width and height that a box has at least, in pixels of the frame.
        max_edge_sigma: how unsure the most unsure edge of a box may be, in pixels of the frame; None: as it likes. Only
            of models that give :attr:`gfl_edge.detections.Detections.edge_sigma`.

    Raises:
        InputError: a value that cannot be meant.
    """

    score: float | None = None
    class_scores: Mapping[str, float] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    regions: tuple[Region, ...] = ()
    excluded: tuple[Region, ...] = ()
    region_by: Anchor | float = "center"
    min_size: tuple[float, float] = (0.0, 0.0)
    max_edge_sigma: float | None = None

    def __post_init__(self) -> None:
        if self.score is not None:
            number("score", self.score, 0, 1)
        if not isinstance(self.class_scores, Mapping):
            raise InputError(f"class_scores {shown(self.class_scores)}: expected scores by name, as {{'person': 0.5}}")
        for name, score in self.class_scores.items():
            number(f"the score of {shown(name)}", score, 0, 1)
        if not isinstance(self.classes, (tuple, list)) or not all(isinstance(name, str) for name in self.classes):
            raise InputError(f"classes {shown(self.classes)}: expected a tuple of names, as ('person', 'car')")
        for kind, regions in (("regions", self.regions), ("excluded", self.excluded)):
            if not isinstance(regions, (tuple, list)) or not all(isinstance(region, Region) for region in regions):
                raise InputError(f"{kind} {shown(regions)}: expected a tuple of gfl_edge.filters.Region")
        if self.region_by not in ("center", "bottom") and not _share(self.region_by):
            raise InputError(
                f"region_by {shown(self.region_by)}: expected 'center', 'bottom', or the share of a box's area that "
                "has to lie in a region, more than 0 and up to 1"
            )
        if not isinstance(self.min_size, (tuple, list)) or len(self.min_size) != 2:
            raise InputError(f"min_size {shown(self.min_size)}: expected width and height in pixels")
        for side in self.min_size:
            number("min_size", side, 0, float(MAX_COORDINATE))
        if self.max_edge_sigma is not None:
            number("max_edge_sigma", self.max_edge_sigma, 0, float(MAX_COORDINATE))
        left_out = [name for name in self.class_scores if self.classes and name not in self.classes]
        if left_out:
            raise InputError(
                f"a score is given for {shown(left_out[0])}, which is none of the classes that count: "
                f"{_some(self.classes)}. Add it to them, or leave its score out"
            )

    def for_model(self, spec: Recommending) -> DetectionFilter:
        """This filter with the scores that the model recommends where none is given.

        Raises:
            InputError: a class that the model does not have, names the nearest; or no sigmas where ``max_edge_sigma``
                is about them.
        """
        self.check_classes(spec.class_names)
        if self.max_edge_sigma is not None:
            spec.require_sigmas("max_edge_sigma")
        if self.score is not None:
            return self
        stored = zip(spec.class_names, spec.class_scores or (), strict=spec.class_scores is not None)
        recommended = {name: score for name, score in stored if not self.classes or name in self.classes}
        return replace(self, score=spec.shown_score, class_scores={**recommended, **self.class_scores})

    def check_classes(self, class_names: Sequence[str]) -> None:
        """Raise InputError where a class of the filter is none of these; names the nearest."""
        for name in (*self.classes, *self.class_scores):
            if name not in class_names:
                raise InputError(f"the model has no class {shown(name)}{_nearest(name, class_names)}")

    def check_sources(self, sources: int) -> None:
        """Raise InputError where a region is for a source beyond the first so many."""
        for region in (*self.regions, *self.excluded):
            if region.source is not None and region.source >= sources:
                there = "there is only one, 0" if sources == 1 else f"there are {sources}, 0 to {sources - 1}"
                raise InputError(f"a region is for source {region.source}, but {there}")

    def check_frame(self, frame_hw: tuple[int, int], source: int = 0) -> None:
        """Raise InputError where a region lies outside of a frame of this (height, width)."""
        for region in (*self._of(self.regions, source), *self._of(self.excluded, source)):
            region.corners(frame_hw)

    def apply(self, detections: Detections, frame_hw: tuple[int, int] | None = None, *, source: int = 0) -> Detections:
        """The detections that count, in their order.

        Args:
            detections: of one frame.
            frame_hw: (height, width) of the frame; may be None where no region is in shares of it.
            source: that it came from, where regions are for one of several.

        Raises:
            InputError: a class that the model does not have, a region that lies outside of the frame, or no sigmas.
        """
        self.check_classes(detections.class_names)
        keep = self._by_class(detections)
        if self.max_edge_sigma is not None:
            if detections.edge_sigma is None:
                raise InputError("max_edge_sigma is about edge_sigma, which these detections do not have")
            keep &= (detections.edge_sigma <= np.float32(self.max_edge_sigma)).all(axis=1)
        if any(self.min_size):
            keep &= (detections.boxes[:, 2:] - detections.boxes[:, :2] >= np.array(self.min_size, np.float32)).all(
                axis=1
            )
        boxes = np.asarray(detections.boxes, np.float64)
        if regions := self._of(self.regions, source):
            keep &= self._within(boxes, regions, frame_hw)
        if excluded := self._of(self.excluded, source):
            keep &= ~self._within(boxes, excluded, frame_hw)
        return detections if keep.all() else detections[keep]

    def _by_class(self, detections: Detections) -> Mask:
        names = detections.class_names
        lowest = np.full(len(names), 0.0 if self.score is None else self.score, np.float32)
        for name, score in self.class_scores.items():
            lowest[names.index(name)] = score
        if self.classes:
            counts = np.zeros(len(names), np.bool_)
            counts[[names.index(name) for name in self.classes]] = True
            lowest[~counts] = np.inf
        return np.asarray(detections.scores >= lowest[detections.class_ids])

    def _within(self, boxes: Doubles, regions: Iterable[Region], frame_hw: tuple[int, int] | None) -> Mask:
        """Which boxes ``[n, 4]`` lie in one of the regions ``[n]``."""
        found = np.zeros(len(boxes), np.bool_)
        for corners in (region.corners(frame_hw) for region in regions):
            if isinstance(self.region_by, str):
                middle = (boxes[:, :2] + boxes[:, 2:]) / 2
                if self.region_by == "bottom":
                    middle[:, 1] = boxes[:, 3]
                found |= inside(middle, corners)
            else:
                found |= share_inside(boxes, corners) >= self.region_by * (1 - 1e-9)  # of 1 rounding leaves less
        return found

    @staticmethod
    def _of(regions: Iterable[Region], source: int) -> list[Region]:
        """Those for all sources or for this one."""
        return [region for region in regions if region.source in (None, source)]


def _share(value: object) -> bool:
    return not isinstance(value, str) and number("region_by", value, 0, 1) > 0


def _nearest(name: str, known: Sequence[str]) -> str:
    by_folded = {other.casefold(): other for other in reversed(known)}
    close = difflib.get_close_matches(name.casefold()[:100], by_folded, 1)
    guess = f"; {by_folded[close[0]]}?" if close else "."
    return f"{guess} Its classes: {_some(known)}"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more
