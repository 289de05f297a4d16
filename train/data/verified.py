"""Every image of a set looked at before training: whether it is whole, and how large it is.

JPEGs, which are followed from their header to their end, take a moment, other formats are decoded. What was found
of a large set is kept in the cache of gfl_edge, by path, size and time of change, so that the next run starts at once.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from gfl_edge.annotations.checks import NAMED, OnBad, size_mismatch
from gfl_edge.annotations.records import Annotations
from gfl_edge.errors import AnnotationError, ImageError, OutputError
from gfl_edge.files import cache_folder, is_file, read_regular, write_atomically
from gfl_edge.media.images import image_hw
from gfl_edge.parsing.json_text import json_text
from gfl_edge.progress import track

logger = logging.getLogger(__name__)

FORMAT = 1  # of the cache; another one is not read
MAX_THREADS = 8
MIN_REMEMBERED = 500  # images; fewer are looked at in no time
NOT_WHOLE = "images that cannot be decoded"
OF_ANOTHER_SIZE = "images of another size than declared"

Size = tuple[int, int]  # height and width, pixels
_Seen = list[int]  # bytes of the file, nanoseconds of its last change, height, width


def measured(paths: Sequence[Path], progress: bool = False) -> list[Size | ImageError]:
    """Height and width of each image file, or why it has none.

    Args:
        paths: the files.
        progress: draw a line of progress on stderr.
    """
    if not paths:
        return []
    cache = _cache_file(paths)
    known = _read(cache)
    keys = [_key(path) for path in paths]
    new = [
        (path, key) for path, key in dict(zip(paths, keys, strict=True)).items() if known.get(str(path), [])[:2] != key
    ]
    failed: dict[str, ImageError] = {}
    with ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as pool:
        found = pool.map(_measure, [path for path, _ in new])
        shown = progress and len(new) >= MIN_REMEMBERED
        for (path, key), size in zip(new, track(found, "looking at the images", len(new), shown), strict=True):
            if isinstance(size, ImageError):
                failed[str(path)] = size
            elif key is not None:
                known[str(path)] = [*key, *size]
    if len(new) - len(failed) >= MIN_REMEMBERED and cache is not None:
        with suppress(OutputError):  # a cache that cannot be written saves nothing, and is not needed
            write_atomically(cache, json_text({"format": FORMAT, "images": known}).encode(), durable=False)
    return [failed[str(path)] if str(path) in failed else (known[str(path)][2], known[str(path)][3]) for path in paths]


def verified(
    annotations: Annotations, on_bad: OnBad = "error", progress: bool = False
) -> tuple[Annotations, dict[str, int]]:
    """The annotations with the sizes of their images.

    Files that are missing are left to :func:`gfl_edge.annotations.checks.check_annotations`.

    Args:
        annotations: as read.
        on_bad: what happens to images that cannot be decoded or are not of the declared size: "error", or "drop".
        progress: draw a line of progress on stderr.

    Returns:
        The annotations, and how many images of each kind were left out.

    Raises:
        AnnotationError: such an image; counted, the first ones named with the reason.
    """
    present = [is_file(record.path) for record in annotations.records]
    paths = [record.path for record, there in zip(annotations.records, present, strict=True) if there]
    sizes = iter(measured(paths, progress))
    problems: dict[str, list[str]] = {}
    records = []
    for record, there in zip(annotations.records, present, strict=True):
        size = next(sizes) if there else record.size_hw
        if isinstance(size, ImageError):
            problems.setdefault(NOT_WHOLE, []).append(str(size))
        elif there and size is not None and record.size_hw not in (None, size):
            problems.setdefault(OF_ANOTHER_SIZE, []).append(size_mismatch(record.path, record.size_hw, size))
        else:
            records.append(replace(record, size_hw=size))
    if problems:
        listed = " | ".join(
            f"{len(found)} {kind}: {'; '.join(found[:NAMED])}"
            + (f"; and {len(found) - NAMED} more" if len(found) > NAMED else "")
            for kind, found in problems.items()
        )
        if on_bad == "error":
            raise AnnotationError(
                f'{annotations.origin}: {listed}. Correct them, or leave these images out with on_bad = "drop"'
            )
        logger.warning("%s: left out %s", annotations.origin, listed)
    return replace(annotations, records=tuple(records)), {kind: len(found) for kind, found in problems.items()}


def _measure(path: Path) -> Size | ImageError:
    try:
        return image_hw(path)
    except ImageError as error:
        return error


def _key(path: Path) -> list[int] | None:
    """What changes when the file does; None if there is no such file."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return [found.st_size, found.st_mtime_ns]


def _cache_file(paths: Sequence[Path]) -> Path | None:
    """One for each folder of images, whatever lists are read of it."""
    folder = cache_folder()
    if folder is None:
        return None
    place = os.path.commonpath([str(path.absolute().parent) for path in paths])
    return folder / "images" / f"{hashlib.sha256(place.encode(errors='surrogateescape')).hexdigest()[:16]}.json"


def _read(cache: Path | None) -> dict[str, _Seen]:
    if cache is None:
        return {}
    try:
        content = json.loads(read_regular(cache))
        found = dict(content["images"]) if content["format"] == FORMAT else {}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    return {path: seen for path, seen in found.items() if _is_seen(seen)}


def _is_seen(found: object) -> bool:
    """Whether it is what this project writes, and no damage."""
    return isinstance(found, list) and len(found) == 4 and all(type(number) is int for number in found)
