"""What an evaluation found, by the names and numbers of its annotation file."""

from __future__ import annotations

from gfl_edge.evaluation.ap import Evidence
from gfl_edge.filters.detection_filter import DetectionFilter
from gfl_edge.results.image_result import ImageResult, relative_name


def evaluated(evidence: Evidence, keep: DetectionFilter) -> list[ImageResult]:
    """The images that were evaluated, with the ids of their file and the detections that count."""
    records = {record.image_id: record for record in evidence.truth.records}
    results = []
    for image_id, found in zip(evidence.image_ids, evidence.found, strict=True):
        record, size_hw = records[image_id], evidence.sizes_hw[image_id]
        name = relative_name(record.path, evidence.truth.image_folder)
        file_id = image_id if record.file_id is None else record.file_id
        results.append(ImageResult(record.path, name, file_id, size_hw, keep.apply(found, size_hw)))
    return results


def file_category_ids(evidence: Evidence) -> dict[int, int | str]:
    """The ids in the annotation file of the classes that were evaluated, by their numbers in the model."""
    known = evidence.truth.file_category_ids
    pairs = zip(evidence.class_ids, evidence.category_ids, strict=True)
    return {class_id: known[number - 1] if known else number for class_id, number in pairs}
