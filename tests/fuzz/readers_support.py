"""Files that drivers keep beside their input."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from gfl_edge import optional

HEIGHT, WIDTH = 24, 32  # pixels


@cache
def image_beside(path: Path) -> Path:
    """The folder of ``path`` with the gray images a.png and b.png in it."""
    cv2, numpy = optional.load("cv2"), optional.load("numpy")
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(path.parent / name), numpy.full((HEIGHT, WIDTH, 3), 114, numpy.uint8))
    return path.parent
