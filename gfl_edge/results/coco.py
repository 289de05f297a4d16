"""Detections as COCO has them: a file of instances with scores, and the list that pycocotools' ``loadRes`` reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gfl_edge.evaluation.ap import coco_results
from gfl_edge.results.image_result import ImageResult


def results_list(results: Sequence[ImageResult], category_ids: Mapping[int, int | str]) -> list[dict[str, Any]]:
    """What ``loadRes`` reads; see :func:`gfl_edge.evaluation.ap.coco_results`.

    Args:
        results: of the images.
        category_ids: of the classes, by their numbers.
    """
    return [entry for one in results for entry in coco_results(one.detections, one.image_id, category_ids)]  # type: ignore[arg-type]


def instances(
    results: Sequence[ImageResult], class_names: Sequence[str], category_ids: Mapping[int, int | str]
) -> dict[str, Any]:
    """The content of a file of instances, each annotation with its ``score``."""
    images = [
        {"id": one.image_id, "file_name": one.file_name, "width": one.size_hw[1], "height": one.size_hw[0]}
        for one in results
    ]
    annotations = [
        {"id": number, **entry, "area": entry["bbox"][2] * entry["bbox"][3], "iscrowd": 0}
        for number, entry in enumerate(results_list(results, category_ids), 1)
    ]
    categories = [{"id": key, "name": class_names[class_id]} for class_id, key in category_ids.items()]
    return {"images": images, "annotations": annotations, "categories": categories}
