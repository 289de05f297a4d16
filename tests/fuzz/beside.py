"""Files that drivers keep beside their input."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from gfl_edge import optional

HEIGHT, WIDTH = 24, 32  # pixels
VOC = """<annotation><size><width>32</width><height>24</height></size><object><name>cat</name>
<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object></annotation>"""


@cache
def annotation_tree(folder: Path) -> Path:
    """``folder`` with gray images and, for each, a label file of YOLO and an XML file of VOC."""
    cv2, numpy = optional.load("cv2"), optional.load("numpy")
    for kind in ("images", "labels", "xml"):
        (folder / kind / "sub").mkdir(parents=True, exist_ok=True)
    for name in ("a", "sub/b"):
        cv2.imwrite(f"{folder}/images/{name}.png", numpy.full((HEIGHT, WIDTH, 3), 114, numpy.uint8))
        (folder / "labels" / f"{name}.txt").write_text("0 0.5 0.5 0.25 0.25\n")
        (folder / "xml" / f"{name}.xml").write_text(VOC)
    (folder / "voc.txt").write_text("a\nsub/b\n")
    return folder
