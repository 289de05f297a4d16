"""Two models side by side on the same images: AP, size, latency, and how far their detections agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gfl_edge.annotations.checks import OnBad
from gfl_edge.console import aligned
from gfl_edge.detections import Detections
from gfl_edge.detector import Detector
from gfl_edge.errors import InputError, SourceError
from gfl_edge.evaluation.agreement import SCORE, DetectionAgreement, agree
from gfl_edge.evaluation.ap import (
    METRICS,
    Frames,
    Metrics,
    as_coco,
    average_precision,
    coco_results,
    judged,
    rounded,
    timed,
)
from gfl_edge.evaluation.truth import check_limit, read_truth
from gfl_edge.filters.detection_filter import DetectionFilter
from gfl_edge.media.images import image_files
from gfl_edge.ops.preprocess import Image
from gfl_edge.parsing.numbers import number

WARM_UPS = 3  # runs before the first that counts


@dataclass(frozen=True)
class Measured:
    """One of the two models.

    Attributes:
        metrics: the twelve COCO numbers, see :class:`gfl_edge.evaluation.ap.Evaluation`; None without annotations.
        size_bytes: of its file; None where it ran in a backend without one.
        median_ms: per image, of pre-processing, network and post-processing, without reading the file.
        p90_ms: likewise; nine of ten images took no longer.
        model: see :meth:`gfl_edge.detector.Detector.describe`.
        backend: likewise.
    """

    metrics: Metrics | None
    size_bytes: int | None
    median_ms: float
    p90_ms: float
    model: dict[str, Any]
    backend: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, the metrics at the top level, null where not measured or without boxes of a size."""
        return {
            **(dict.fromkeys(METRICS) if self.metrics is None else rounded(self.metrics)),
            "size_bytes": self.size_bytes,
            "median_ms": round(self.median_ms, 3),
            "p90_ms": round(self.p90_ms, 3),
            "model": self.model,
            "backend": self.backend,
        }


@dataclass(frozen=True)
class Comparison:
    """Two models on the same images.

    Attributes:
        reference: what the other is compared with.
        candidate: the other.
        agreement: of their detections.
        images: how many images both ran on.
        skipped: names of images that could not be read and so were left out.
        only_classes: names of the classes that were chosen; empty: all.
    """

    reference: Measured
    candidate: Measured
    agreement: DetectionAgreement
    images: int
    skipped: tuple[str, ...]
    only_classes: tuple[str, ...] = ()

    @property
    def latency_ratio(self) -> float:
        """Median latency of the candidate by that of the reference; below 1 it is the faster one."""
        return self.candidate.median_ms / self.reference.median_ms

    @property
    def size_ratio(self) -> float | None:
        """Size of the candidate's file by that of the reference's; None unless both have one."""
        sizes = self.candidate.size_bytes, self.reference.size_bytes
        return None if sizes[0] is None or sizes[1] is None else sizes[0] / sizes[1]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        agreement = {
            name: round(value, 4) if isinstance(value, float) else value
            for name, value in asdict(self.agreement).items()
        }
        return {
            "reference": self.reference.to_dict(),
            "candidate": self.candidate.to_dict(),
            "latency_ratio": round(self.latency_ratio, 4),
            "size_ratio": None if self.size_ratio is None else round(self.size_ratio, 4),
            "agreement": agreement,
            "images": self.images,
            "skipped": list(self.skipped),
            **({"only_classes": list(self.only_classes)} if self.only_classes else {}),
        }


def compare(
    reference: Detector,
    candidate: Detector,
    images: str | Path,
    annotations: str | Path | None = None,
    *,
    limit: int | None = None,
    score: float = SCORE,
    progress: bool = True,
    on_bad: OnBad = "error",
    classes: Sequence[str] = (),
) -> Comparison:
    """Run two detectors on the same images, image by image in turn, so that both meet the same load of the machine.

    Which of them is the first changes from image to image. Their latencies compare with each other rather than with
    those of a model that has the machine for itself.

    Args:
        reference: what the other is compared with.
        candidate: of the same classes.
        images: folder of the annotation file's ``file_name`` entries; without annotations the images directly in it are
            taken, in order of name.
        annotations: COCO instances JSON; None: AP is not measured.
        limit: only the first so many images.
        score: detections with at least this score are matched, see :mod:`gfl_edge.evaluation.agreement`. AP takes all.
        progress: draw a progress line on stderr.
        on_bad: see :func:`gfl_edge.annotations.checks.check_annotations`.
        classes: names of those that are compared; empty: all.

    Raises:
        AnnotationError: see :func:`gfl_edge.evaluation.ap.evaluate`.
        InputError: the classes differ, no such folder, missing images, none that could be read, ``limit`` or ``score``.
    """
    check_limit(limit)
    number("--score", score, 0, 1)
    _check_classes(reference, candidate)
    keep = DetectionFilter(classes=tuple(classes))
    keep.check_classes(reference.spec.class_names)
    if annotations is None:
        coco: Any = None
        category_of: dict[int, int] = {}
        frames = Frames(_all_files(Path(images), limit), images, "comparing", progress)
    else:
        truth = read_truth(annotations, images, limit, on_bad)
        coco, (category_of, _) = as_coco(truth.to_coco()), judged(truth, reference.spec.class_names, classes)
        frames = Frames.of(truth, "comparing", progress)
    contenders = (_Contender(reference, keep), _Contender(candidate, keep))
    image_ids: list[int] = []
    for image_id, frame in frames:
        if not image_ids:
            for contender in contenders * WARM_UPS:
                contender.detector(frame)
        for contender in contenders if len(image_ids) % 2 == 0 else reversed(contenders):
            contender.measure(frame)
        image_ids.append(image_id)
    measured = [contender.result(coco, image_ids, category_of) for contender in contenders]
    agreement = agree(zip(contenders[0].found, contenders[1].found, strict=True), score)
    return Comparison(measured[0], measured[1], agreement, len(image_ids), tuple(frames.skipped), keep.classes)


def table(comparison: Comparison) -> str:
    """The comparison for people: lines of aligned columns, A the reference and B the candidate."""
    return aligned([("", "A", "B", "B against A"), *_model_rows(comparison), *_agreement_rows(comparison)])


def _model_rows(comparison: Comparison) -> list[tuple[str, str, str, str]]:
    a, b = comparison.reference, comparison.candidate
    ratio = "" if comparison.size_ratio is None else f"x {comparison.size_ratio:.2f}"
    rows = [
        ("file", a.model["file"] or "-", b.model["file"] or "-", ""),
        ("backend", a.backend["name"], b.backend["name"], ""),
        ("precision", a.model["precision"], b.model["precision"], ""),
        ("INT8 convolutions", str(a.model["quantized_layers"]), str(b.model["quantized_layers"]), ""),
        ("size, MB", _megabytes(a), _megabytes(b), ratio),
    ]
    for name in ("AP", "AP50"):
        if a.metrics is None or b.metrics is None:
            rows.append((name, "not measured", "not measured", ""))
        elif (of_a := a.metrics[name]) is None or (of_b := b.metrics[name]) is None:
            rows.append((name, "none", "none", ""))
        else:
            values = round(of_a, 2), round(of_b, 2)  # so that the difference is that of the row
            rows.append((name, f"{values[0]:.2f}", f"{values[1]:.2f}", f"{values[1] - values[0]:+.2f}"))
    return [
        *rows,
        ("latency, median ms", f"{a.median_ms:.2f}", f"{b.median_ms:.2f}", f"x {comparison.latency_ratio:.2f}"),
        ("latency, p90 ms", f"{a.p90_ms:.2f}", f"{b.p90_ms:.2f}", f"x {b.p90_ms / a.p90_ms:.2f}"),
    ]


def _megabytes(measured: Measured) -> str:
    return "-" if measured.size_bytes is None else f"{measured.size_bytes / 1e6:.2f}"


def _agreement_rows(comparison: Comparison) -> list[tuple[str, str, str, str]]:
    found = comparison.agreement

    def shown(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    return [
        ("images", str(comparison.images), str(comparison.images), ""),
        (f"detections from {found.score:g} on", str(found.reference), str(found.candidate), ""),
        ("  that the other has", shown(found.of_reference), shown(found.of_candidate), f"F1 {shown(found.f1)}"),
        ("  IoU with it, mean", "", "", shown(found.mean_iou)),
        ("  score difference, mean", "", "", shown(found.mean_score_difference)),
    ]


class _Contender:
    """A detector, what it has found so far of what counts, and the milliseconds that each image took."""

    def __init__(self, detector: Detector, keep: DetectionFilter) -> None:
        self.detector, self._keep = detector, keep
        self.found: list[Detections] = []
        self._milliseconds: list[float] = []

    def measure(self, frame: Image) -> None:
        found, milliseconds = timed(self.detector, frame)
        self.found.append(self._keep.apply(found))
        self._milliseconds.append(milliseconds)

    def result(self, coco: Any, image_ids: list[int], category_of: Mapping[int, int]) -> Measured:
        metrics = None
        if coco is not None:
            rows = zip(image_ids, self.found, strict=True)
            results = [row for image_id, found in rows for row in coco_results(found, image_id, category_of)]
            metrics = average_precision(coco, results, image_ids, category_ids=category_of.values())
        median_ms, p90_ms = np.percentile(self._milliseconds, (50, 90)).tolist()
        size_bytes = self.detector.path.stat().st_size if self.detector.path else None
        return Measured(metrics, size_bytes, median_ms, p90_ms, **self.detector.describe())


def _all_files(folder: Path, limit: int | None) -> dict[int, Path]:
    if not folder.is_dir():
        raise SourceError(f"{folder}: no such folder of images. Give one with --images")
    return dict(enumerate(image_files(folder)[:limit]))


def _check_classes(reference: Detector, candidate: Detector) -> None:
    a, b = reference.spec.class_names, candidate.spec.class_names
    if a == b:
        return
    names = " and ".join((one.path or Path(one.spec.name)).name for one in (reference, candidate))
    advice = "Compare models of the same classes; export/to_onnx.py names them by --classes"
    if len(a) != len(b):
        raise InputError(f"{names} differ in classes: {len(a)} ({a[0]} ...) and {len(b)} ({b[0]} ...). {advice}")
    first = next(i for i in range(len(a)) if a[i] != b[i])
    raise InputError(
        f"{names} differ in classes: number {first} is {a[first]!r} in one, {b[first]!r} in the other. {advice}"
    )
