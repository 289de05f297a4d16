"""What can be wrong with annotations, found before training starts."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from gfl_edge.annotations.records import Annotations, ImageRecord, Objects, clip
from gfl_edge.errors import AnnotationError, ImageError, InputError
from gfl_edge.media.images import image_hw

OnBad = Literal["error", "drop"]

OVERSHOOT_PX = 1.0  # a box may end so far outside its image: annotation tools count pixels from 0 or from 1
NAMED = 5  # how many of a kind a message names
SIZES_READ = 100  # images whose declared size is compared with the file, spread over the set

# Kinds of bad boxes, in the order of testing: a box counts once
NOT_FINITE = "with NaN or infinity"
FOREIGN = "of an unknown class"
INVERTED = "inverted (x2 < x1 or y2 < y1)"
OUTSIDE = f"more than {OVERSHOOT_PX:g} px outside the image"
EMPTY = "empty (zero area)"
BOX_KINDS = (NOT_FINITE, FOREIGN, INVERTED, OUTSIDE, EMPTY)
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
        dropped: bad boxes and images by kind, as left out.
        per_class: objects that are left.
    """

    images: int
    background: int
    boxes: int
    ignored: int
    clipped: int
    dropped: dict[str, int]
    per_class: dict[str, int]

    @property
    def classes_without_box(self) -> tuple[str, ...]:
        """Classes that cannot be learned from this set."""
        return tuple(name for name, count in self.per_class.items() if not count)

    def plus(self, others: Iterable[CheckReport]) -> CheckReport:
        """The counts of several sets together; they have the same classes."""
        parts = [self, *others]
        counts = ("images", "background", "boxes", "ignored", "clipped")
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
        parts += [f"{count} {what}" for what, count in (("ignored", self.ignored), ("clipped", self.clipped)) if count]
        parts += [f"{count} {kind} left out" for kind, count in self.dropped.items()]
        return ", ".join(parts)


def check_annotations(annotations: Annotations, on_bad: OnBad = "error") -> tuple[Annotations, CheckReport]:
    """Check every box and image of a set, so that nothing bad comes up in the middle of training.

    Args:
        annotations: as read.
        on_bad: "error" refuses bad boxes, missing files and duplicates; "drop" leaves them out with a warning.

    Returns:
        The annotations with sizes of all images, boxes clipped to them, and no foreign classes; and the counts.

    Raises:
        AnnotationError: bad boxes, missing files or duplicates (counted, the first of each kind named); images of
            another size than declared; or no box is left.
        InputError: ``on_bad`` is neither of the two.
    """
    if on_bad not in get_args(OnBad):
        raise InputError(f"on_bad {on_bad!r}: expected one of {', '.join(get_args(OnBad))}")
    problems: dict[str, list[str]] = {}
    present = _present_once(annotations.records, problems)
    _check_sizes(annotations.origin, present)
    records = tuple(_measured(record) for record in present)
    records = tuple(_without_bad_boxes(annotations, record, problems) for record in records)
    _refuse_or_warn(annotations.origin, problems, on_bad)
    clipped = tuple(_clipped(record) for record in records)
    moved = sum(int((a.boxes != b.boxes).any(axis=1).sum()) for a, b in zip(records, clipped, strict=True))
    checked = replace(annotations, records=clipped, foreign_classes=())
    report = _report(checked, moved, {kind: len(places) for kind, places in problems.items()})
    if not report.boxes:
        raise AnnotationError(
            f"{annotations.origin}: no box in {len(annotations)} images, so there is nothing to learn"
        )
    if report.classes_without_box:
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
        elif not record.path.is_file():
            line = f" (line {record.line})" if record.line else ""
            problems.setdefault(MISSING, []).append(f"{record.path}{line}")
        else:
            kept[key] = record
    return list(kept.values())


def _check_sizes(origin: str, records: list[ImageRecord]) -> None:
    """Compare declared sizes with files: boxes of a shrunk or turned image would all be wrong."""
    declared = [record for record in records if record.size_hw is not None]
    wrong = []
    for index in sorted(set(np.linspace(0, len(declared) - 1, min(SIZES_READ, len(declared)), dtype=int).tolist())):
        record = declared[index]
        try:
            found = image_hw(record.path)
        except ImageError as error:
            wrong.append(str(error))
            continue
        if found != record.size_hw:
            wrong.append(size_mismatch(record, found))
    if wrong:
        raise AnnotationError(f"{origin}: {len(wrong)} images read are not as declared: {'; '.join(wrong[:NAMED])}")


def size_mismatch(record: ImageRecord, found: tuple[int, int]) -> str:
    """What is wrong with an image whose file has another size than declared."""
    height, width = record.size_hw or (0, 0)
    turned = ", turned as its EXIF data says" if found == (width, height) else ""
    return (
        f"{record.path} is {found[1]} x {found[0]} pixels{turned}, its annotations are for {width} x {height}: "
        "use the images that were annotated, or scale the boxes"
    )


def _measured(record: ImageRecord) -> ImageRecord:
    if record.size_hw is not None:
        return record
    try:
        return replace(record, size_hw=image_hw(record.path))
    except ImageError as error:
        raise AnnotationError(f"{error}, or take it out of the annotations") from error


def _without_bad_boxes(annotations: Annotations, record: ImageRecord, problems: dict[str, list[str]]) -> ImageRecord:
    size = _size(record)
    masks = _bad_boxes(record.objects, size)
    for kind, mask in masks.items():
        for index in np.flatnonzero(mask).tolist():
            corners = ", ".join(f"{value:.6g}" for value in record.boxes[index])
            place = f"{record.path.name}: [{corners}] {annotations.name_of(int(record.labels[index]))}"
            problems.setdefault(kind, []).append(place)
    bad_ignored = np.logical_or.reduce(list(_bad_boxes(record.ignored, size).values()))
    good = ~np.logical_or.reduce(list(masks.values()))
    return replace(record, objects=record.objects.where(good), ignored=record.ignored.where(~bad_ignored))


def _bad_boxes(objects: Objects, size_hw: tuple[int, int]) -> dict[str, NDArray[np.bool_]]:
    """Masks ``[n]`` of bad boxes by kind; a box is in one of them at most."""
    height, width = size_hw
    limit = np.array((width, height), np.float32)
    x1y1, x2y2 = objects.boxes[:, :2], objects.boxes[:, 2:]
    with np.errstate(invalid="ignore"):  # infinity less infinity
        sides = x2y2 - x1y1
    outside = (np.minimum(x1y1, x2y2) < -OVERSHOOT_PX) | (np.maximum(x1y1, x2y2) > limit + OVERSHOOT_PX)
    found: dict[str, NDArray[np.bool_]] = {
        NOT_FINITE: _any(~np.isfinite(objects.boxes)),
        FOREIGN: objects.labels < 0,
        INVERTED: _any(sides < 0),
        OUTSIDE: _any(outside),
        EMPTY: _any(np.minimum(x2y2, limit) <= np.maximum(x1y1, 0)),  # also after clipping
    }
    taken = np.zeros(len(objects), np.bool_)
    for kind, mask in found.items():
        found[kind] = mask & ~taken
        taken |= mask
    return found


def _any(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether any of a row ``[n, m]`` holds, ``[n]``."""
    return np.asarray(mask.any(axis=1), np.bool_)


def _refuse_or_warn(origin: str, problems: dict[str, list[str]], on_bad: OnBad) -> None:
    if not problems:
        return
    parts = []
    for kind in (MISSING, DUPLICATE, *BOX_KINDS):
        if places := problems.get(kind):
            noun = "" if kind not in BOX_KINDS else "box " if len(places) == 1 else "boxes "
            more = f"; and {len(places) - NAMED} more" if len(places) > NAMED else ""
            parts.append(f"{len(places)} {noun}{kind}: {'; '.join(places[:NAMED])}{more}")
    listed = " | ".join(parts)
    if on_bad == "error":
        raise AnnotationError(f'{origin}: {listed}. Fix the annotations, or leave these out with on_bad = "drop"')
    logger.warning("%s: left out %s", origin, listed)


def _clipped(record: ImageRecord) -> ImageRecord:
    size = _size(record)
    objects, ignored = (
        replace(objects, boxes=clip(objects.boxes, size)) for objects in (record.objects, record.ignored)
    )
    return replace(record, objects=objects, ignored=ignored)


def _size(record: ImageRecord) -> tuple[int, int]:
    if record.size_hw is None:
        raise ValueError(f"{record.path}: size unknown")
    return record.size_hw


def _report(checked: Annotations, clipped: int, dropped: dict[str, int]) -> CheckReport:
    return CheckReport(
        images=len(checked),
        background=sum(not len(record.objects) for record in checked.records),
        boxes=sum(len(record.objects) for record in checked.records),
        ignored=sum(len(record.ignored) for record in checked.records),
        clipped=clipped,
        dropped=dropped,
        per_class=checked.count_by_class(),
    )
