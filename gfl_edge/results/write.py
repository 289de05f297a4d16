"""All files of results of a run, whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from gfl_edge.files import whole_files
from gfl_edge.parsing.json_text import json_text
from gfl_edge.results.coco import instances, results_list
from gfl_edge.results.formats import Format, loadable
from gfl_edge.results.image_result import ImageResult
from gfl_edge.results.tables import write_csv, write_json_lines
from gfl_edge.results.yolo import write_yolo


def write_results(
    results: Sequence[ImageResult],
    files: Mapping[Format, Path],
    class_names: Sequence[str],
    category_ids: Mapping[int, int | str] | None = None,
) -> None:
    """Write the results of all images; the first file has its name only when all are written.

    Args:
        results: in order.
        files: of :func:`gfl_edge.results.formats.result_files`; the folder of YOLO is not there, or empty.
        class_names: of the model.
        category_ids: COCO's, by the numbers of the classes that can have been found; None: of all, from 1 on.

    Raises:
        OutputError: a file cannot be written.
    """
    ids: Mapping[int, int | str] = category_ids or {class_id: class_id + 1 for class_id in range(len(class_names))}
    coco, yolo = files.get("coco"), files.get("yolo")
    plain = {kind: path for kind, path in files.items() if kind != "yolo"}
    beside = [loadable(coco)] if coco else []
    with whole_files([*plain.values(), *beside]) as temporaries:
        by_kind = dict(zip(plain, temporaries, strict=False))
        if coco:
            by_kind["coco"].write_text(json_text(instances(results, class_names, ids)), encoding="ascii")
            temporaries[-1].write_text(json_text(results_list(results, ids)), encoding="ascii")
        if "csv" in by_kind:
            write_csv(by_kind["csv"], results)
        if "jsonl" in by_kind:
            write_json_lines(by_kind["jsonl"], results)
        if yolo:
            _write_folder(yolo, results, class_names)


def _write_folder(folder: Path, results: Sequence[ImageResult], class_names: Sequence[str]) -> None:
    """YOLO's folder under a temporary name beside it; what a run that was killed left of that is removed."""
    temporary = folder.with_name(f".gfl_edge-{folder.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        write_yolo(temporary, results, class_names)
        if folder.is_dir():
            folder.rmdir()  # empty: Windows renames none over it
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
