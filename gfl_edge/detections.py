"""The one container in which detections of a frame are passed around."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gfl_edge import optional
from gfl_edge.errors import InputError
from gfl_edge.ops.boxes import MAX_COORDINATE, sound, sound_sigmas
from gfl_edge.parsing.numbers import number

SHOWN = 5  # objects in the text of Detections


@dataclass(frozen=True, eq=False, repr=False)
class Detections:
    """Objects found in one frame, in order of falling score.

    Attributes:
        boxes: float32 ``[n, 4]`` xyxy in pixels of the frame, finite, the second corner not before the first; a box cut
            off at the border may have no area.
        scores: float32 ``[n]``, 0..1.
        class_ids: int32 ``[n]``, indices into ``class_names``.
        class_names: names of all classes of the model.
        track_ids: int64 ``[n]``, the same for the same object in every frame of a source; -1 of what is not followed,
            or not yet. None where nothing is followed.
        edge_sigma: float32 ``[n, 4]``, standard deviations of the left, top, right and bottom edge in pixels of the
            frame, finite and not negative: how sure the model is of each, see docs/uncertainty.md. None where the model
            does not say.

    Raises:
        InputError: the arrays do not fit together, or a value cannot be one of a detection: NaN, and the like.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    class_ids: NDArray[np.int32]
    class_names: tuple[str, ...]
    track_ids: NDArray[np.int64] | None = None
    edge_sigma: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        n = len(self.scores)
        if self.boxes.shape != (n, 4) or self.scores.shape != (n,) or self.class_ids.shape != (n,):
            raise InputError(
                f"boxes {self.boxes.shape}, scores {self.scores.shape}, class_ids {self.class_ids.shape}: "
                "expected (n, 4), (n,), (n,)"
            )
        if self.track_ids is not None and self.track_ids.shape != (n,):
            raise InputError(f"track_ids {self.track_ids.shape}: expected ({n},), one for each box")
        if n and not (self.class_ids.min() >= 0 and self.class_ids.max() < len(self.class_names)):
            raise InputError(f"class_ids outside 0..{len(self.class_names) - 1}")
        wrong = np.flatnonzero(~sound(self.boxes, self.scores))
        if len(wrong):
            first = int(wrong[0])
            raise InputError(
                f"detection {first} has the box {self.boxes[first].tolist()} and the score {self.scores[first]}: "
                f"expected finite x1 <= x2 and y1 <= y2 of at most {MAX_COORDINATE:g} pixels, and a score of 0..1"
            )
        if self.edge_sigma is not None:
            _check_sigma(self.edge_sigma, n)

    def __len__(self) -> int:
        return len(self.scores)

    def __repr__(self) -> str:
        first = [f"{name} {score:.2f} {box.round().astype(int).tolist()}" for box, score, name in self[:SHOWN]]
        more = [f"{len(self) - SHOWN} more"] if len(self) > SHOWN else []
        return f"<Detections: {', '.join(first + more) or 'none'}>"

    def __iter__(self) -> Iterator[tuple[NDArray[np.float32], float, str]]:
        """Yield ``(box xyxy, score, class name)`` per object."""
        for box, score, class_id in zip(self.boxes, self.scores, self.class_ids, strict=True):
            yield box, float(score), self.class_names[class_id]

    def __getitem__(self, chosen: Any) -> Detections:
        """Select objects by a slice, mask, index or index array."""
        chosen = [chosen] if isinstance(chosen, int | np.integer) else chosen
        tracks = None if self.track_ids is None else self.track_ids[chosen]
        sigma = None if self.edge_sigma is None else self.edge_sigma[chosen]
        boxes, scores, class_ids = self.boxes[chosen], self.scores[chosen], self.class_ids[chosen]
        return Detections(boxes, scores, class_ids, self.class_names, tracks, sigma)

    def above(self, score: float) -> Detections:
        """The objects whose score is at least ``score``; raises InputError unless that is 0..1."""
        return self[self.scores >= number("score", score, 0, 1)]

    def to_dicts(self) -> list[dict[str, Any]]:
        """Plain values for JSON: ``box_xyxy`` (2 decimals), ``score`` (4 decimals), ``class_id``, ``class_name``; with
        ``track_ids`` also ``track_id``, None of what is not followed; with ``edge_sigma`` also ``edge_sigma_px`` (2
        decimals).
        """
        found: list[dict[str, Any]] = [
            {
                "box_xyxy": [round(float(v), 2) for v in box],
                "score": round(float(score), 4),
                "class_id": int(class_id),
                "class_name": self.class_names[class_id],
            }
            for box, score, class_id in zip(self.boxes, self.scores, self.class_ids, strict=True)
        ]
        for values, track in zip(found, () if self.track_ids is None else self.track_ids.tolist(), strict=False):
            values["track_id"] = track if track >= 0 else None
        for values, sigma in zip(found, () if self.edge_sigma is None else self.edge_sigma, strict=False):
            values["edge_sigma_px"] = [round(float(v), 2) for v in sigma]
        return found

    def to_supervision(self) -> Any:
        """These objects as ``supervision.Detections``; names of classes are its ``data["class_name"]``.

        With ``edge_sigma`` these are its ``data["edge_sigma"]``.

        Raises:
            MissingDependencyError: supervision is not installed.
        """
        names = np.array([self.class_names[i] for i in self.class_ids], np.str_)
        sigmas = {} if self.edge_sigma is None else {"edge_sigma": self.edge_sigma.copy()}
        return optional.load("supervision").Detections(
            xyxy=self.boxes.copy(),
            confidence=self.scores.copy(),
            class_id=self.class_ids.astype(np.int64),
            tracker_id=None if self.track_ids is None else self.track_ids.copy(),
            data={"class_name": names, **sigmas},
        )

    @classmethod
    def from_supervision(cls, found: Any, class_names: Sequence[str]) -> Detections:
        """The boxes of ``supervision.Detections``, in order of falling score; of masks nothing is kept.

        Args:
            found: without scores each has 1; without identities there are none.
            class_names: of all classes, by ``class_id``, which may be missing where there is one class.

        Raises:
            InputError: classes that are not among the names, or what can be no detections.
        """
        if isinstance(class_names, str):
            raise InputError(f"class_names {class_names[:60]!r}: expected the names of all classes, as ('person',)")
        n = len(found.xyxy)
        scores = np.ones(n, np.float32) if found.confidence is None else np.asarray(found.confidence, np.float32)
        if found.class_id is None and len(class_names) != 1:
            raise InputError(f"these detections have no class_id, and there are {len(class_names)} classes: set it")
        class_ids = np.zeros(n) if found.class_id is None else _whole("class_id", found.class_id)
        tracks = None if found.tracker_id is None else _whole("tracker_id", found.tracker_id)
        boxes = np.asarray(found.xyxy, np.float32).reshape(-1, 4)
        sigma = found.data.get("edge_sigma")
        sigma = None if sigma is None else np.asarray(sigma, np.float32).reshape(-1, 4)
        unsorted = cls(boxes, scores, np.asarray(class_ids, np.int32), tuple(class_names), tracks, sigma)
        return unsorted[np.argsort(-scores, kind="stable")]


def _whole(name: str, values: Any) -> NDArray[np.int64]:
    """Whole numbers, of whatever type, as they are; raises InputError where one is none."""
    given = np.asarray(values)
    with np.errstate(invalid="ignore"):
        numbers = given.astype(np.int64) if given.dtype.kind in "iuf" else np.zeros(0, np.int64)
    if numbers.shape != given.shape or (numbers != given).any():
        raise InputError(f"{name} {reprlib.repr(given.tolist())}: expected a whole number for each box")
    return numbers


def _check_sigma(sigma: NDArray[np.float32], count: int) -> None:
    if sigma.shape != (count, 4):
        raise InputError(f"edge_sigma {sigma.shape}: expected ({count}, 4), one for each edge of each box")
    wrong = np.flatnonzero(~sound_sigmas(sigma))
    if len(wrong):
        first = int(wrong[0])
        raise InputError(
            f"detection {first} has the edge_sigma {sigma[first].tolist()}: expected 0 to {MAX_COORDINATE:g} pixels"
        )
