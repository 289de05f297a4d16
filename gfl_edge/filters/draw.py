"""The regions of a filter, faintly on a frame."""

from __future__ import annotations

import numpy as np

from gfl_edge import optional
from gfl_edge.filters.detection_filter import DetectionFilter
from gfl_edge.ops.preprocess import Image

INCLUDED, EXCLUDED = (255, 255, 255), (0, 0, 0)  # BGR
OPACITY = 0.5
SIDE_PER_LINE_PX = 800  # lines get a pixel wider for each


def draw_regions(image: Image, keep: DetectionFilter, source: int = 0) -> Image:
    """A copy of ``image``, uint8 ``[H, W, 3]`` BGR, with the borders of the regions for a source; itself without any.

    Those in which objects count are white, those in which they do not are black.
    """
    regions = [(region, INCLUDED) for region in keep.regions] + [(region, EXCLUDED) for region in keep.excluded]
    regions = [(region, color) for region, color in regions if region.source in (None, source)]
    if not regions:
        return image
    cv2 = optional.load("cv2")
    height, width = image.shape[:2]
    lines = image.copy()
    for region, color in regions:
        corners = np.clip(np.rint(region.corners((height, width))), -(2**14), 2**14).astype(np.int32)
        cv2.polylines(lines, [corners], True, color, 1 + round((height * width) ** 0.5 / SIDE_PER_LINE_PX))
    drawn: Image = cv2.addWeighted(lines, OPACITY, image, 1 - OPACITY, 0, dst=lines)
    return drawn
