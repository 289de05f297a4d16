"""Lists of image ids, by which a part of a COCO file is trained on and another held out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from gfl_edge.annotations.records import Annotations
from gfl_edge.annotations.text import read_lines
from gfl_edge.errors import AnnotationError
from gfl_edge.parsing.validation import shown

COMMENT = "#"
NAMED = 5  # how many ids a message names
MAX_DIGITS = 18


def read_ids(path: Path) -> frozenset[int]:
    """The ids in a text file, one a line; empty lines and those that start with # do not count.

    Raises:
        AnnotationError: the file cannot be read, is empty, or a line is no whole number or comes twice.
    """
    ids: set[int] = set()
    for number, line in enumerate(read_lines(path, AnnotationError), 1):
        if not line or line.startswith(COMMENT):
            continue
        if not (line.isascii() and line.isdigit() and len(line) <= MAX_DIGITS):
            raise AnnotationError(f"{path}, line {number}: {shown(line)}, expected the id of an image, a whole number")
        if int(line) in ids:
            raise AnnotationError(f"{path}, line {number}: the id {line} comes twice. Take one out")
        ids.add(int(line))
    if not ids:
        raise AnnotationError(f"{path} lists no ids. Write one a line")
    return frozenset(ids)


def with_ids(annotations: Annotations, path: Path, keep: bool) -> Annotations:
    """The images whose ids the file ``path`` lists, or, unless ``keep``, all others.

    Raises:
        AnnotationError: see :func:`read_ids`; ids of images that are not there; or no image is left.
    """
    listed = read_ids(path)
    unknown = sorted(listed - {record.image_id for record in annotations.records})
    if unknown:
        named = ", ".join(map(str, unknown[:NAMED])) + (" ..." if len(unknown) > NAMED else "")
        raise AnnotationError(
            f"{path}: {len(unknown)} of {len(listed)} ids are of no image of {annotations.origin}, first {named}. Is "
            "it the list of another file?"
        )
    records = tuple(record for record in annotations.records if (record.image_id in listed) == keep)
    if not records:
        raise AnnotationError(f"{path} lists all images of {annotations.origin}, so that none is left")
    return replace(annotations, records=records)
