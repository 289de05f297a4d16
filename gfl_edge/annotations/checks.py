"""What can be wrong with annotations, found before training or evaluation starts."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from gfl_edge.annotations.bad_boxes import BOX_KINDS, EMPTY, are_parts, bad_boxes, check_corners
from gfl_edge.annotations.records import Annotations, ImageRecord, clip
from gfl_edge.errors import AnnotationError, ImageError, InputError
from gfl_edge.files import is_file
from gfl_edge.media.images import image_hw

OnBad = Literal["error", "drop"]
Purpose = Literal["training", "evaluation"]

NAMED = 5  # how many of a kind a message names
ADVICE = 'Fix the annotations, or leave these out with on_bad = "drop" (--on-bad drop)'
SIZES_READ = 100  # images whose declared size is compared with the file, spread over the set

MISSING = "missing image files"
DUPLICATE = "images listed twice"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CheckReport:
    """What the checks counted.

    Attributes:
        images: that are left.
        background: of these, images without an object.
        boxes: objects that are left.
        ignored: crowds and difficult objects, which are not learned.
        clipped: boxes that reached out of their image by at most ``OVERSHOOT_PX`` and were cut back.
        identical: boxes that repeat another of the same class and image; they are left in.
        dropped: bad boxes and images by kind, as left out.
        per_class: objects that are left.
    """

    images: int
    background: int
    boxes: int
    ignored: int
    clipped: int
    identical: int
    dropped: dict[str, int]
    per_class: dict[str, int]

    @property
    def classes_without_box(self) -> tuple[str, ...]:
        """Classes that cannot be learned from this set."""
        return tuple(name for name, count in self.per_class.items() if not count)

    def plus(self, others: Iterable[CheckReport]) -> CheckReport:
        """The counts of several sets together; they have the same classes."""
        parts = [self, *others]
        counts = ("images", "background", "boxes", "ignored", "clipped", "identical")
        sums: dict[str, Any] = {name: sum(getattr(part, name) for part in parts) for name in counts}
        for name in ("dropped", "per_class"):
            total: Counter[str] = Counter()
            for part in parts:
                total.update(getattr(part, name))
            sums[name] = dict(total)
        return CheckReport(**sums)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**vars(self), "dropped": dict(self.dropped), "per_class": dict(self.per_class)}

    def summary(self) -> str:
        """One line for the log."""
        parts = [f"{self.images} images ({self.background} background)", f"{self.boxes} boxes"]
        parts += [
            f"{getattr(self, what)} {what}" for what in ("ignored", "clipped", "identical") if getattr(self, what)
        ]
        parts += [f"{count} {kind} left out" for kind, count in self.dropped.items()]
        return ", ".join(parts)


def check_annotations(
    annotations: Annotations, on_bad: OnBad = "error", purpose: Purpose = "training"
) -> tuple[Annotations, CheckReport]:
    """Check every box and image of a set, so that nothing bad comes up in the middle of the work.

    Evaluation counts as COCO does: boxes are not clipped, and of zero area they are only warned of, as COCO's own files
    have some, which nothing can match. Images that cannot be decoded stay, as evaluation names them itself.

    Args:
        annotations: as read.
        on_bad: "error" refuses bad boxes, missing files and duplicates; "drop" leaves them out with a warning.
        purpose: what the annotations are for.

    Returns:
        The annotations with sizes of all images, for training with boxes clipped to them, and no foreign classes; and
        the counts.

    Raises:
        AnnotationError: bad boxes, missing files or duplicates (counted, the first of each kind named); images of
            another size than declared; boxes that are corners by all appearance; or no box is left.
        InputError: ``on_bad`` is neither of the two.
    """
    if on_bad not in get_args(OnBad):
        raise InputError(f"on_bad {on_bad!r}: expected one of {', '.join(get_args(OnBad))}")
    training = purpose == "training"
    problems: dict[str, list[str]] = {}
    present = _present_once(annotations.records, problems)
    _check_sizes(annotations.origin, present, training)
    records = [_measured(record, training) for record in present]
    check_corners(annotations.origin, records)
    in_parts = are_parts(records)
    tolerated = () if training or on_bad == "drop" else (EMPTY,)
    records = [_without_bad_boxes(annotations, r, problems, in_parts, training, tolerated) for r in records]
    for kind in tolerated:
        if places := problems.pop(kind, []):
            logger.warning(
                "%s: %s. They count as missed, as in COCO's evaluation", annotations.origin, _listed(kind, places)
            )
    _refuse_or_warn(annotations, problems, on_bad)
    identical = _warn_of_identical(annotations, records)
    clipped = [_clipped(record) for record in records] if training else records
    moved = sum(int((a.boxes != b.boxes).any(axis=1).sum()) for a, b in zip(records, clipped, strict=True))
    checked = replace(annotations, records=tuple(clipped), foreign_classes=())
    report = _report(checked, moved, identical, {kind: len(places) for kind, places in problems.items()})
    if not report.boxes:
        therefore = "there is nothing to learn" if training else "AP cannot be computed"
        raise AnnotationError(f"{annotations.origin}: no box in {len(annotations)} images, so {therefore}")
    if training and report.classes_without_box:
        names = ", ".join(report.classes_without_box)
        logger.warning("%s: no box of %d classes: %s", annotations.origin, len(report.classes_without_box), names)
    return checked, report


def _present_once(records: tuple[ImageRecord, ...], problems: dict[str, list[str]]) -> list[ImageRecord]:
    """The records whose image file exists, each file once."""
    kept: dict[str, ImageRecord] = {}
    for record in records:
        key = os.path.normpath(record.path)
        if key in kept:
            problems.setdefault(DUPLICATE, []).append(record.path.name)
        elif not is_file(record.path):
            line = f" (line {record.line})" if record.line else ""
            problems.setdefault(MISSING, []).append(f"{record.path}{line}")
        else:
            kept[key] = record
    return list(kept.values())


def _check_sizes(origin: str, records: list[ImageRecord], decodable: bool) -> None:
    """Compare declared sizes with files: boxes of a shrunk or turned image would all be wrong."""
    declared = [record for record in records if record.size_hw is not None]
    wrong = []
    for index in sorted(set(np.linspace(0, len(declared) - 1, min(SIZES_READ, len(declared)), dtype=int).tolist())):
        record = declared[index]
        try:
            found = image_hw(record.path)
        except ImageError as error:
            wrong += [str(error)] if decodable else []
            continue
        if record.size_hw is not None and found != record.size_hw:
            wrong.append(size_mismatch(record.path, record.size_hw, found))
    if wrong:
        raise AnnotationError(f"{origin}: {len(wrong)} images read are not as declared: {'; '.join(wrong[:NAMED])}")


def size_mismatch(path: Path, declared_hw: tuple[int, int], found: tuple[int, int]) -> str:
    """What is wrong with an image whose file has another size than declared."""
    height, width = declared_hw
    turned = " (a quarter turn: by its EXIF data, or width and height are swapped)" if found == (width, height) else ""
    return (
        f"{path} is {found[1]} x {found[0]} pixels{turned}, its annotations are for {width} x {height}: "
        "use the images that were annotated, or scale the boxes"
    )


def _measured(record: ImageRecord, decodable: bool) -> ImageRecord:
    if record.size_hw is not None:
        return record
    try:
        return replace(record, size_hw=image_hw(record.path))
    except ImageError as error:
        if not decodable:
            return record
        raise AnnotationError(f"{error}, or take it out of the annotations") from error


def _without_bad_boxes(
    annotations: Annotations,
    record: ImageRecord,
    problems: dict[str, list[str]],
    in_parts: bool,
    training: bool,
    tolerated: tuple[str, ...],
) -> ImageRecord:
    """The record without its bad boxes, which are added to ``problems``, except for the ignored ones of training."""
    kept = []
    for objects, named in ((record.objects, True), (record.ignored, not training)):
        masks = bad_boxes(objects, record.size_hw, in_parts)
        for kind, mask in masks.items():
            for index in np.flatnonzero(mask).tolist() if named else ():
                corners = ", ".join(f"{value:.6g}" for value in objects.boxes[index])
                place = f"{record.path.name}: [{corners}] {annotations.name_of(int(objects.labels[index]))}"
                problems.setdefault(kind, []).append(place)
        bad = [mask for kind, mask in masks.items() if kind not in tolerated]
        kept.append(objects.where(~np.logical_or.reduce(bad)))
    return replace(record, objects=kept[0], ignored=kept[1])


def _refuse_or_warn(annotations: Annotations, problems: dict[str, list[str]], on_bad: OnBad) -> None:
    if not problems:
        return
    listed = " | ".join(_listed(kind, problems[kind]) for kind in (MISSING, DUPLICATE, *BOX_KINDS) if kind in problems)
    if on_bad == "drop":
        logger.warning("%s: left out %s", annotations.origin, listed)
        return
    folder = f"Are the images in {annotations.image_folder}? " if MISSING in problems else ""
    raise AnnotationError(f"{annotations.origin}: {listed}. {folder}{ADVICE}")


def _listed(kind: str, places: list[str]) -> str:
    noun = "" if kind not in BOX_KINDS else "box " if len(places) == 1 else "boxes "
    more = f"; and {len(places) - NAMED} more" if len(places) > NAMED else ""
    return f"{len(places)} {noun}{kind}: {'; '.join(places[:NAMED])}{more}"


def _warn_of_identical(annotations: Annotations, records: list[ImageRecord]) -> int:
    """The number of boxes that repeat another of the same class and image; all are named in one warning."""
    places = []
    for record in records:
        boxes = list(zip(record.labels.tolist(), map(tuple, record.boxes.tolist()), strict=True))
        repeats = len(boxes) - len(set(boxes))
        places += [record.path.name] * repeats
    if places:
        images = list(dict.fromkeys(places))
        more = f" and {len(images) - NAMED} more" if len(images) > NAMED else ""
        logger.warning(
            "%s: %d identical boxes (listed twice or more in an image, with the same class), in %s%s. Each counts: "
            "take out the duplicates",
            *(annotations.origin, len(places), ", ".join(images[:NAMED]), more),
        )
    return len(places)


def _clipped(record: ImageRecord) -> ImageRecord:
    assert record.size_hw is not None  # measured
    objects, ignored = (
        replace(objects, boxes=clip(objects.boxes, record.size_hw)) for objects in (record.objects, record.ignored)
    )
    return replace(record, objects=objects, ignored=ignored)


def _report(checked: Annotations, clipped: int, identical: int, dropped: dict[str, int]) -> CheckReport:
    return CheckReport(
        images=len(checked),
        background=sum(not len(record.objects) for record in checked.records),
        boxes=sum(len(record.objects) for record in checked.records),
        ignored=sum(len(record.ignored) for record in checked.records),
        clipped=clipped,
        identical=identical,
        dropped=dropped,
        per_class=checked.count_by_class(),
    )
