"""The formats in which detections are written, and the names of their files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, get_args

from gfl_edge.errors import InputError, OutputError
from gfl_edge.files import check_output
from gfl_edge.parsing.validation import shown

Format = Literal["coco", "yolo", "csv", "jsonl"]
# coco: images, categories and annotations with scores; what pycocotools' loadRes reads goes beside it. yolo: a folder
NAMES: dict[Format, str] = {
    "coco": "coco.json",
    "yolo": "yolo",
    "csv": "detections.csv",
    "jsonl": "detections.jsonl",
}
Formats = Mapping[Format, "str | Path"]


def parse_formats(text: str) -> dict[Format, str | Path]:
    """Formats by a word of a command line: ``coco,csv``, or with other names of their files: ``coco,csv=cars.csv``.

    Raises:
        InputError: an unknown format, one that comes twice, or an empty name.
    """
    found: dict[Format, str | Path] = {}
    for word in text.split(","):
        kind, equals, name = word.partition("=")
        kind, name = kind.strip(), name.strip()
        known = next((one for one in get_args(Format) if one == kind), None)
        if known is None or known in found or (equals and not name):
            raise InputError(
                f"format {shown(word)}: expected {', '.join(NAMES)}, each once, or several with commas between them; "
                "with the name of a file as csv=cars.csv"
            )
        found[known] = name or NAMES[known]
    return found


def join_formats(several: Iterable[dict[Format, str | Path]]) -> dict[Format, str | Path]:
    """All of them as one; raises InputError where one comes twice."""
    joined: dict[Format, str | Path] = {}
    for formats in several:
        if twice := [kind for kind in formats if kind in joined]:
            raise InputError(f"the format {twice[0]} is given twice: leave one of them out")
        joined.update(formats)
    return joined


def result_files(formats: Formats | Iterable[Format], folder: Path) -> dict[Format, Path]:
    """Where each format is written: its name in ``folder``, unless that is an absolute path.

    Raises:
        InputError: an unknown format.
    """
    named = formats if isinstance(formats, Mapping) else {kind: NAMES.get(kind, "") for kind in formats}
    if unknown := [kind for kind in named if kind not in NAMES]:
        raise InputError(f"format {shown(unknown[0])}: expected some of {', '.join(NAMES)}")
    return {kind: folder / name for kind, name in named.items()}


def loadable(coco: Path) -> Path:
    """The file beside COCO's that pycocotools' ``loadRes`` reads."""
    return coco.with_name(f"{coco.stem}-results{coco.suffix}")


def check_results(files: Mapping[Format, Path], others: Iterable[Path] = ()) -> None:
    """Find out before an hour of work that results could not be written after it.

    Args:
        files: of :func:`result_files`.
        others: what else is read or written.

    Raises:
        OutputError: a file that cannot be written; a folder of YOLO that is there already, whose labels may be
            corrected by now.
        InputError: two that are the same.
    """
    taken = {os.path.realpath(path) for path in others}
    paths = [*files.values(), *(loadable(files[kind]) for kind in ("coco",) if kind in files)]
    for path in paths:
        if (real := os.path.realpath(path)) in taken:
            raise InputError(f"{path} is the name of two files: give another with --format, as csv=other.csv")
        taken.add(real)
        if path == files.get("yolo"):
            check_output(path / "data.yaml")
            if path.is_dir() and any(path.iterdir()):
                raise OutputError(
                    f"{path} is there already, and its labels may have been corrected: remove it, or give another name "
                    "with --format yolo=NAME"
                )
        else:
            check_output(path)
