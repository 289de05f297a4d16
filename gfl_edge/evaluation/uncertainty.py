"""Whether the standard deviations that a model gives its edges are as large as its errors.

Judged are edges of detections of a score of at least ``SCORE`` that are matched with annotated boxes of their class,
the best first, by an IoU of at least ``IOU``. Edges that lie at the border of the image, either one, are left out:
there both are cut off, and nothing can be wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gfl_edge.annotations.records import ImageRecord
from gfl_edge.detections import Detections
from gfl_edge.errors import InputError
from gfl_edge.evaluation.agreement import IOU, SCORE, match
from gfl_edge.spec import ModelSpec

EDGES = ("left", "top", "right", "bottom")
ONE_SIGMA = 0.6827  # of a normal distribution within one standard deviation
BORDER_PX = 1.0
MIN_EDGES = 100  # of each kind, to learn a factor from: it is then within about 10 %
BINS = 10  # of the reliability chart, with as many edges each

Reals = NDArray[np.float64]


@dataclass(frozen=True)
class Reliability:
    """How sigmas and errors of some edges go together.

    Attributes:
        edges: how many there are.
        within_1_sigma: percent of errors of at most one sigma; None without edges.
        within_2_sigma: of at most two.
        rank_correlation: Spearman's of sigma and absolute error in pixels; None where either is the same everywhere.
        relative_rank_correlation: the same after both are divided by the side of the annotated box.
        factor: sigmas times this are as large as 68.27 % of the errors; None without edges, or where that is infinite.
    """

    edges: int
    within_1_sigma: float | None
    within_2_sigma: float | None
    rank_correlation: float | None
    relative_rank_correlation: float | None
    factor: float | None


@dataclass(frozen=True)
class Bin:
    """Edges of similar sigmas: how many, the median of these, and what half and 68.27 % of the errors are below."""

    edges: int
    sigma_px: float
    median_error_px: float
    error_68_px: float


@dataclass(frozen=True)
class Uncertainty:
    """What :class:`EdgeErrors` found.

    Attributes:
        boxes: detections that were matched.
        by_edge: by the names of ``EDGES``, and "all".
        bins: of all edges, by rising sigma.
    """

    boxes: int
    by_edge: dict[str, Reliability]
    bins: tuple[Bin, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        by_edge = {name: _rounded(asdict(one)) for name, one in self.by_edge.items()}
        bins = [_rounded(asdict(one)) for one in self.bins]
        return {"score": SCORE, "iou": IOU, "boxes": self.boxes, "edges": by_edge, "reliability": bins}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Uncertainty:
        """From what :meth:`to_dict` gave."""
        by_edge = {name: Reliability(**one) for name, one in values["edges"].items()}
        return cls(values["boxes"], by_edge, tuple(Bin(**one) for one in values["reliability"]))


class EdgeErrors:
    """Collects the errors of detections image by image.

    Args:
        labels: of the annotations, per class of the model; -1 where it is not judged.

    Attributes:
        images: how many there were.
    """

    def __init__(self, labels: Sequence[int]) -> None:
        self.images = 0
        self._class_of = {label: index for index, label in enumerate(labels) if label >= 0}
        self._rows: list[Reals] = []  # sigma, error, side of each edge of a box, [3, 4]; NaN where it does not count

    def add(self, found: Detections, record: ImageRecord, size_hw: tuple[int, int]) -> list[float]:
        """Match what was found in an image of that size in pixels with its annotations; the scores of the matched."""
        self.images += 1
        known = np.array([label in self._class_of for label in record.labels.tolist()], bool)
        boxes, names = record.boxes[known], found.class_names
        classes = np.array([self._class_of[label] for label in record.labels[known].tolist()], np.int32)
        truth = Detections(boxes, np.ones(len(boxes), np.float32), classes, names)
        confident = found.above(SCORE)
        assert confident.edge_sigma is not None
        pairs = match(confident, truth)
        for pair in pairs:
            own, true = (it.astype(np.float64) for it in (confident.boxes[pair.reference], boxes[pair.candidate]))
            sigma = confident.edge_sigma[pair.reference].astype(np.float64)
            sides = np.tile(true[2:] - true[:2], 2)
            row = np.stack((sigma, np.abs(own - true), sides))
            row[:, _at_border(own, size_hw) | _at_border(true, size_hw)] = np.nan
            self._rows.append(row)
        return [float(confident.scores[pair.reference]) for pair in pairs]

    def rows(self) -> Reals:
        """Sigma, absolute error and side of the annotated box ``[boxes, 3, 4]`` in pixels; NaN of edges left out."""
        return np.stack(self._rows) if self._rows else np.zeros((0, 3, 4))

    def result(self) -> Uncertainty:
        """What it comes to."""
        rows = self.rows()
        by_edge = {name: reliability(*_counted(rows[..., i])) for i, name in enumerate(EDGES)}
        sigmas, errors, sides = _counted(np.moveaxis(rows, 2, 1).reshape(-1, 3))
        by_edge["all"] = reliability(sigmas, errors, sides)
        order = np.argsort(sigmas, kind="stable")
        parts = [part for part in np.array_split(order, BINS) if len(part)]
        return Uncertainty(len(rows), by_edge, tuple(_bin(sigmas[part], errors[part]) for part in parts))


def reliability(sigmas: Reals, errors: Reals, sides: Reals) -> Reliability:
    """Of edges ``[n]`` each: sigma, absolute error and side of the annotated box, in pixels."""
    if not len(sigmas):
        return Reliability(0, None, None, None, None, None)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where(errors > 0, errors / sigmas, 0.0)  # of a sure edge that errs: infinite
    factor = float(np.quantile(ratios, ONE_SIGMA, method="inverted_cdf"))
    within = [100 * float((errors <= count * sigmas).mean()) for count in (1, 2)]
    usable = sides > 0
    relative = rank_correlation(sigmas[usable] / sides[usable], errors[usable] / sides[usable])
    known = factor if 0 < factor < np.inf else None
    return Reliability(len(sigmas), within[0], within[1], rank_correlation(sigmas, errors), relative, known)


def rank_correlation(a: Reals, b: Reals) -> float | None:
    """Spearman's: that of the ranks, of which equal values have the mean of theirs; None where all of one are equal."""
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(np.corrcoef(_ranks(a), _ranks(b))[0, 1])


def learned_scale(found: Uncertainty, spec: ModelSpec) -> tuple[float, float, float, float]:
    """The ``sigma_scale`` with which 68.27 % of the errors that were found are within one sigma.

    Args:
        found: with the sigmas as the model of that spec gives them.
        spec: whose factors are in them already.

    Raises:
        InputError: there are too few edges of a kind, or most of them are of sigma 0 and err.
    """
    factors = []
    for name, own in zip(EDGES, spec.sigma_scale, strict=True):
        one = found.by_edge[name]
        if one.edges < MIN_EDGES:
            raise InputError(
                f"{one.edges} {name} edges were matched and are not at the border of their image: expected "
                f"{MIN_EDGES} or more to learn sigma_scale from. Give more annotated images"
            )
        if one.factor is None:
            raise InputError(f"no factor makes 68 % of the errors of {name} edges one sigma: the model's sigmas are 0")
        factors.append(float(f"{own * one.factor:.4g}"))
    left, top, right, bottom = factors
    return left, top, right, bottom


def _at_border(box: Reals, size_hw: tuple[int, int]) -> NDArray[np.bool_]:
    height, width = size_hw
    ends = np.array((0, 0, width, height), np.float64)
    return np.asarray(np.abs(box - ends) < BORDER_PX)


def _counted(rows: Reals) -> tuple[Reals, Reals, Reals]:
    """The columns of rows ``[n, 3]``, without those that do not count."""
    sigmas, errors, sides = rows[~np.isnan(rows[:, 0])].T
    return sigmas, errors, sides


def _ranks(values: Reals) -> Reals:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[place])


def _bin(sigmas: Reals, errors: Reals) -> Bin:
    middle, large = np.quantile(errors, (0.5, ONE_SIGMA))
    return Bin(len(sigmas), float(np.median(sigmas)), float(middle), float(large))


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in values.items()}
