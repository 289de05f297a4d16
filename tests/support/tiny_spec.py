"""The description of a tiny model, of which tests change what matters to them."""

from __future__ import annotations

from gfl_edge.spec import ModelSpec

TINY = ModelSpec(
    name="tiny",
    family="nanodet",
    class_names=("cat", "dog"),
    input_hw=(64, 96),
    resize="stretch",
    mean_bgr=(0.0, 0.0, 0.0),
    std_bgr=(1.0, 1.0, 1.0),
    strides=(8, 16),
    reg_max=7,
    point_offset=0.5,
)
