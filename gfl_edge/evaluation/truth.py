"""What detections are judged by: the checked annotations of a COCO file, with ids of our own."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from gfl_edge.annotations.checks import NAMED, OnBad, check_annotations
from gfl_edge.annotations.coco import read_coco
from gfl_edge.annotations.records import Annotations
from gfl_edge.errors import AnnotationError
from gfl_edge.parsing.numbers import whole_number

logger = logging.getLogger(__name__)


def read_truth(
    annotations: str | Path, images: str | Path, limit: int | None = None, on_bad: OnBad = "error"
) -> Annotations:
    """Read and check what is to be evaluated on, before anything is measured.

    Image ids count from 1 and ``to_coco`` counts annotations from 1, whatever the file says: evaluators take an
    annotation id of 0 for none, and one that comes twice for the same box.

    Args:
        annotations: COCO instances JSON.
        images: folder of its ``file_name`` entries.
        limit: only the first so many images, in order of id; the others are not checked.
        on_bad: see :func:`gfl_edge.annotations.checks.check_annotations`.

    Raises:
        AnnotationError: what :func:`gfl_edge.annotations.coco.read_coco` and the checks refuse, or no images.
        InputError: ``limit`` is not positive.
    """
    check_limit(limit)
    if not Path(annotations).is_file():
        what = "a folder, no annotation file" if Path(annotations).is_dir() else "no such annotation file"
        raise AnnotationError(
            f"{annotations}: {what}. Give a COCO instances JSON with --annotations; one of VOC or YOLO files is made, "
            "in a checkout of gfl_edge, by: python train/to_coco.py CONFIG.toml -o annotations.json"
        )
    found = read_coco(annotations, images, on_bad)
    if not found.records:
        raise AnnotationError(f"{annotations} lists no images: nothing to evaluate")
    chosen = sorted(found.records, key=lambda record: record.image_id)[:limit]
    checked, _ = check_annotations(replace(found, records=tuple(chosen)), on_bad, "evaluation")
    numbered = (replace(record, image_id=number) for number, record in enumerate(checked.records, 1))
    return replace(checked, records=tuple(numbered))


def check_limit(limit: int | None) -> None:
    """Raise InputError where a limit leaves no image."""
    if limit is not None:
        whole_number("--limit", limit)


def match_categories(truth: Annotations, class_names: tuple[str, ...]) -> tuple[int, ...]:
    """Category id, as in ``truth.to_coco()``, per class of the model that is judged, by name.

    Logs it if the model does not know all categories, and if there are no boxes of some that it knows, over which
    nothing is averaged.

    Raises:
        AnnotationError: classes that are no category, or there is no box of any of them.
    """
    known = truth.class_names
    unknown = [name for name in class_names if name not in known]
    if unknown:
        raise AnnotationError(
            f"{truth.origin} has no category for {len(unknown)} of the {len(class_names)} classes: "
            f"{', '.join(unknown[:NAMED])}. Its categories: {', '.join(known[:NAMED])} ... "
            "Use the annotations of the model's own data set, name its classes as they do when it is exported, or "
            "evaluate only those that they have: gfl-edge eval --classes A,B"
        )
    counts = truth.count_by_class()
    without = [name for name in class_names if not counts[name]]
    if len(without) == len(class_names):
        raise AnnotationError(
            f"{truth.origin}: no box of {', '.join(class_names[:NAMED])} in the {len(truth)} images evaluated, "
            f"so AP cannot be computed. Its boxes are of {', '.join(name for name in known if counts[name])}"
        )
    if len(class_names) < len(known):
        logger.info("AP is that of %d of %d categories of the annotations", len(class_names), len(known))
    if without:
        more = f" and {len(without) - NAMED} more" if len(without) > NAMED else ""
        listed = f"{', '.join(without[:NAMED])}{more}"
        logger.info("AP is that of the classes with boxes: there are none of %d classes, %s", len(without), listed)
    return tuple(known.index(name) + 1 for name in class_names)
