"""What every annotation format is read into, and its way back into COCO's format for evaluation."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gfl_edge.errors import AnnotationError
from gfl_edge.ops.boxes import areas as box_areas
from gfl_edge.ops.preprocess import Boxes

Labels = NDArray[np.int64]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Objects:
    """The objects of one image.

    Attributes:
        boxes: float32 ``[n, 4]`` xyxy in pixels of the image; edges, so that a whole image is 0, 0, width, height.
        labels: int64 ``[n]``, class indices; a negative one is ``~i`` for class i of ``Annotations.foreign_classes``.
        areas: float32 ``[n]`` square pixels: of the mask where the file says so, else of the box. COCO's metrics by
            size go by them.
    """

    boxes: Boxes
    labels: Labels
    areas: NDArray[np.float32]

    @classmethod
    def of(cls, boxes: ArrayLike, labels: ArrayLike, areas: ArrayLike | None = None) -> Objects:
        """Objects from anything array-like, with areas of the boxes where none are given."""
        with np.errstate(over="ignore"):  # beyond float32 is infinity, which the checks find
            boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
        labels = np.asarray(labels, np.int64).reshape(-1)
        areas = box_areas(boxes) if areas is None else np.asarray(areas, np.float32).reshape(-1)
        if not len(boxes) == len(labels) == len(areas):
            raise ValueError(f"{len(boxes)} boxes, {len(labels)} labels, {len(areas)} areas: expected as many of each")
        return cls(boxes, labels, areas)

    def __len__(self) -> int:
        return len(self.boxes)

    def where(self, keep: NDArray[np.bool_]) -> Objects:
        """The objects for which ``keep`` (``[n]``) holds."""
        return Objects(self.boxes[keep], self.labels[keep], self.areas[keep])


NO_OBJECTS = Objects.of([], [])


@dataclass(frozen=True, eq=False)
class ImageRecord:
    """One image and its objects.

    Attributes:
        path: the image file.
        image_id: COCO's id; numbered from 1 in formats that have none.
        objects: to be learned.
        ignored: neither learned nor counted as missed in evaluation: COCO's crowds, VOC's difficult objects.
        size_hw: (height, width) in pixels; None where the annotations do not say.
        line: of the list of images, from 1; 0 where there is no list.
        file_id: what a COCO file calls it, whatever ``image_id`` became; None in formats that have no ids.
    """

    path: Path
    image_id: int
    objects: Objects
    ignored: Objects = NO_OBJECTS
    size_hw: tuple[int, int] | None = None
    line: int = 0
    file_id: int | str | None = None

    @property
    def boxes(self) -> Boxes:
        """Boxes to be learned, float32 ``[n, 4]`` xyxy in pixels."""
        return self.objects.boxes

    @property
    def labels(self) -> Labels:
        """Their class indices, int64 ``[n]``."""
        return self.objects.labels


@dataclass(frozen=True, eq=False)
class Annotations:
    """The annotations of a set of images.

    Attributes:
        class_names: in the order of the labels.
        records: one per image.
        image_folder: ``file_name`` of :meth:`to_coco` is relative to it.
        origin: file or folder they were read from, for messages.
        foreign_classes: classes of boxes that ``class_names`` lacks, as the file calls them.
        file_category_ids: what a COCO file calls ``class_names``, in their order; empty in formats that have no ids.
    """

    class_names: tuple[str, ...]
    records: tuple[ImageRecord, ...]
    image_folder: Path
    origin: str
    foreign_classes: tuple[str, ...] = ()
    file_category_ids: tuple[int | str, ...] = ()

    def __len__(self) -> int:
        return len(self.records)

    def name_of(self, label: int) -> str:
        """The class of a label, foreign ones included."""
        return self.class_names[label] if label >= 0 else self.foreign_classes[~label]

    def count_by_class(self) -> dict[str, int]:
        """Objects to be learned per class, foreign ones left out."""
        labels = np.concatenate([record.labels for record in self.records] or [NO_OBJECTS.labels])
        counts = np.bincount(labels[labels >= 0], minlength=len(self.class_names))
        return {name: int(count) for name, count in zip(self.class_names, counts, strict=True)}

    def select(
        self, classes: Sequence[str] = (), rename: Mapping[str, str] | None = None, partial: bool = False
    ) -> Annotations:
        """The same images with other classes; boxes of classes that are left out are dropped with a warning.

        Args:
            classes: the names to keep, in their new order; empty = all, in the order of the file.
            rename: old to new names, applied first; classes renamed to the same name become one.
            partial: whether the annotations may lack some of the names, as a part of a larger set does.

        Raises:
            AnnotationError: a name that the annotations do not have; with ``partial``, if they have none of them.
        """
        rename = dict(rename or {})
        renamed = [rename.get(name, name) for name in self.class_names]
        if not partial:
            self._check_known(rename, self.class_names, "rename")
        if not partial or not set(classes) & set(renamed):
            self._check_known(classes, renamed, "classes")
        kept = tuple(classes) or tuple(dict.fromkeys(renamed))
        counts = self.count_by_class()
        left_out = [f"{name} ({counts[name]})" for name, new in zip(counts, renamed, strict=True) if new not in kept]
        if left_out:
            logger.warning("%s: left out the boxes of %d classes: %s", self.origin, len(left_out), _some(left_out))
        index_of = {name: index for index, name in enumerate(kept)}
        table = np.array([index_of.get(name, _LEFT_OUT) for name in renamed], np.int64)
        records = tuple(
            replace(record, objects=_relabeled(record.objects, table), ignored=_relabeled(record.ignored, table))
            for record in self.records
        )
        return replace(self, class_names=kept, records=records, file_category_ids=())

    def to_coco(self) -> dict[str, Any]:
        """The content of a COCO instances file; category ids are class indices + 1, ignored objects are crowds."""
        annotations: list[dict[str, Any]] = []
        for record in self.records:
            for objects, iscrowd in ((record.objects, 0), (record.ignored, 1)):
                for (x1, y1, x2, y2), label, area in zip(
                    objects.boxes.tolist(), objects.labels.tolist(), objects.areas.tolist(), strict=True
                ):
                    annotations.append(
                        {
                            "id": len(annotations) + 1,  # pycocotools takes 0 for "unmatched"
                            "image_id": record.image_id,
                            "category_id": label + 1,
                            "bbox": [x1, y1, x2 - x1, y2 - y1],
                            "area": area,
                            "iscrowd": iscrowd,
                        }
                    )
        categories = [{"id": index, "name": name} for index, name in enumerate(self.class_names, 1)]
        images = []
        for record in self.records:
            name = Path(os.path.relpath(record.path, self.image_folder)).as_posix()
            size = {} if record.size_hw is None else {"width": record.size_hw[1], "height": record.size_hw[0]}
            images.append({"id": record.image_id, "file_name": name, **size})
        return {"images": images, "annotations": annotations, "categories": categories}

    def _check_known(self, names: Sequence[str] | Mapping[str, str], known: Sequence[str], field: str) -> None:
        unknown = [name for name in names if name not in known]
        if unknown:
            raise AnnotationError(
                f"{self.origin} has no class {_some(unknown)}, which {field} names. Its classes: {_some(known, 20)}"
            )


def join(sets: Sequence[Annotations], repeats: Sequence[int]) -> Annotations:
    """The images of several sets, which have the same classes, as one; ``image_id`` counts anew from 1.

    Args:
        sets: at least one.
        repeats: how often each set is in it.

    Raises:
        AnnotationError: an image is in two of them.
    """
    records = [record for part in sets for record in part.records]
    counts = Counter(os.path.realpath(record.path) for record in records)
    twice = [path for path, count in counts.items() if count > 1]
    if twice:
        raise AnnotationError(
            f"{len(twice)} images are in more than one of the training sets, first {twice[0]}: leave them out of one"
        )
    repeated = [r for part, times in zip(sets, repeats, strict=True) for r in part.records * times]
    return Annotations(
        class_names=sets[0].class_names,
        records=tuple(replace(record, image_id=number) for number, record in enumerate(repeated, 1)),
        image_folder=Path(os.path.commonpath([os.path.realpath(part.image_folder) for part in sets])),
        origin=" and ".join(part.origin for part in sets),
    )


def clip(boxes: Boxes, size_hw: tuple[int, int]) -> Boxes:
    """Boxes ``[n, 4]`` xyxy cut back to an image of ``size_hw`` pixels."""
    height, width = size_hw
    return np.clip(boxes, np.float32(0), np.array((width, height) * 2, np.float32))


_LEFT_OUT = np.iinfo(np.int64).min


def _relabeled(objects: Objects, table: Labels) -> Objects:
    """``objects`` with label i replaced by ``table[i]`` and left out where that says so; foreign labels stay."""
    own = objects.labels >= 0
    labels = objects.labels.copy()
    labels[own] = table[labels[own]]
    return Objects(objects.boxes, labels, objects.areas).where(labels != _LEFT_OUT)


def _some(names: Sequence[str], limit: int = 10) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
