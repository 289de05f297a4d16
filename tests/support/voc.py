"""Annotation files in the format of VOC."""

from __future__ import annotations


def write_voc(folder, name, objects, size=(100, 80), suffix=".jpg"):
    """One VOC file; ``objects`` are (class, xmin, ymin, xmax, ymax[, difficult])."""
    items = "".join(
        f"<object><name>{label}</name><difficult>{(*rest, 0)[0]}</difficult><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin>"
        f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for label, x1, y1, x2, y2, *rest in objects
    )
    sides = f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>" if size else ""
    folder.mkdir(exist_ok=True)
    text = f"<annotation><filename>old{suffix}</filename>{sides}{items}</annotation>"
    (folder / f"{name}.xml").write_text(text)
