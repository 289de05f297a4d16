"""How far the detections of two models agree."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from gfl_edge.detections import Detections
from gfl_edge.ops.boxes import pairwise_iou

SCORE = 0.3  # detections from here on are what a person would see
IOU = 0.5  # from here on two boxes are of the same object


@dataclass(frozen=True)
class Match:
    """Two detections of the same object: their indices in either list, and how their boxes overlap."""

    reference: int
    candidate: int
    iou: float


@dataclass(frozen=True)
class DetectionAgreement:
    """How far the detections of two models are the same.

    A detection whose score lies just above the threshold in one model and just below in the other counts as different.

    Attributes:
        score: detections with at least this score were matched.
        iou: what two boxes had to overlap by, see :func:`match`.
        reference: detections of the reference.
        candidate: detections of the candidate.
        matched: pairs of them.
        of_reference: matched / reference; None where that is 0 / 0.
        of_candidate: matched / candidate; likewise.
        f1: 2 * matched / (reference + candidate), the harmonic mean of both; 1 where every detection has its partner,
            None where there was none.
        mean_iou: of the boxes of a pair; None without pairs.
        mean_score_difference: of the absolute differences within pairs; None without pairs.
    """

    score: float
    iou: float
    reference: int
    candidate: int
    matched: int
    of_reference: float | None
    of_candidate: float | None
    f1: float | None
    mean_iou: float | None
    mean_score_difference: float | None


def agree(
    pairs: Iterable[tuple[Detections, Detections]], score: float = SCORE, iou_threshold: float = IOU
) -> DetectionAgreement:
    """The agreement over images, given what the reference and what the candidate found in each."""
    counts, overlaps, differences = [0, 0], [], []
    for all_of_reference, all_of_candidate in pairs:
        reference, candidate = all_of_reference.above(score), all_of_candidate.above(score)
        counts = [counts[0] + len(reference), counts[1] + len(candidate)]
        for pair in match(reference, candidate, iou_threshold):
            overlaps.append(pair.iou)
            differences.append(abs(float(reference.scores[pair.reference]) - float(candidate.scores[pair.candidate])))
    matched = len(overlaps)
    return DetectionAgreement(
        score=score,
        iou=iou_threshold,
        reference=counts[0],
        candidate=counts[1],
        matched=matched,
        of_reference=_ratio(matched, counts[0]),
        of_candidate=_ratio(matched, counts[1]),
        f1=_ratio(2 * matched, sum(counts)),
        mean_iou=_ratio(sum(overlaps), matched),
        mean_score_difference=_ratio(sum(differences), matched),
    )


def match(reference: Detections, candidate: Detections, iou_threshold: float = IOU) -> list[Match]:
    """Pair the detections of one image, each with one other at most.

    The reference's detections choose in order of falling score: the free one of their class that overlaps most, if its
    IoU is at least ``iou_threshold``; of those that overlap alike, the one of the highest score.
    """
    overlaps = pairwise_iou(reference.boxes, candidate.boxes)
    overlaps[reference.class_ids[:, None] != candidate.class_ids[None, :]] = -1.0
    matches = []
    for i in range(len(reference) if len(candidate) else 0):
        j = int(np.argmax(overlaps[i]))
        if overlaps[i, j] >= np.float32(iou_threshold):
            matches.append(Match(i, j, float(overlaps[i, j])))
            overlaps[:, j] = -1.0  # taken
    return matches


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
