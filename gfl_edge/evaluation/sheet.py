"""The images in which a detector errs most, with what it missed, imagined and placed badly."""

from __future__ import annotations

from collections.abc import Mapping

from gfl_edge import optional
from gfl_edge.errors import ImageError
from gfl_edge.evaluation.examination import Examination
from gfl_edge.evaluation.faults import Fault, ImageFaults
from gfl_edge.media.draw import Color, contact_sheet, draw_label, draw_status
from gfl_edge.media.images import read_image
from gfl_edge.ops.preprocess import Image

MAX_IMAGES, COLUMNS, WIDTH_PX = 12, 3, 1500
MISSED: Color = (64, 64, 230)  # BGR: red
FALSE: Color = (0, 170, 255)  # orange
MISPLACED: Color = (230, 160, 40)  # blue
MEANING = "red: missed; orange: no such object; blue: badly placed, an IoU of 0.5 to 0.75"


def worst_images(examination: Examination) -> Image | None:
    """A contact sheet, uint8 ``[H, W, 3]`` BGR, of the first ``MAX_IMAGES`` with faults; None where there are none."""
    evidence = examination.evaluation.evidence
    paths = {record.image_id: record.path for record in evidence.truth.records}
    names = dict(enumerate(evidence.truth.class_names, 1))
    drawn = []
    for faults in examination.faults[:MAX_IMAGES]:
        try:
            frame = read_image(paths[faults.image_id])
        except ImageError:  # it could be read before
            continue
        drawn.append(draw_faults(frame, faults, names))
    return contact_sheet(drawn, min(COLUMNS, len(drawn)), WIDTH_PX) if drawn else None


def draw_faults(frame: Image, faults: ImageFaults, names: Mapping[int, str]) -> Image:
    """A copy of ``frame`` (uint8 ``[H, W, 3]``) with a box and a label for each fault; ``names`` of the categories."""
    image = frame.copy()
    for kind, color in ((faults.misplaced, MISPLACED), (faults.false, FALSE), (faults.missed, MISSED)):
        for fault in kind:
            _draw(image, fault, names[fault.category_id], color)
    counts = f"{len(faults.missed)} missed, {len(faults.false)} false, {len(faults.misplaced)} misplaced"
    return draw_status(image, counts, out=image)


def _draw(image: Image, fault: Fault, name: str, color: Color) -> None:
    left, top, width, height = fault.bbox
    corners = [round(value) for value in (left, top, left + width, top + height)]
    label = name if fault.score is None else f"{name} {fault.score:.2f}"
    optional.load("cv2").rectangle(image, tuple(corners[:2]), tuple(corners[2:]), color, 2)
    draw_label(image, label, corners[0], corners[1], color)
