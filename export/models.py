"""From a detector in PyTorch to the description that travels with its exported file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from gfl_edge.coco import COCO_CLASSES
from gfl_edge.errors import InputError
from gfl_edge.spec import ModelSpec, ResizeRule
from train.models import NanoDet
from train.models.nanodet import Family

# ImageNet statistics in BGR order, as in every NanoDet config
MEAN_BGR = (103.53, 116.28, 123.675)
STD_BGR = (57.375, 57.12, 58.395)
SIZE_STEP = 32  # pixels; the backbone halves the input five times


@dataclass(frozen=True)
class FamilyTraits:
    """How a family was trained, which its checkpoints do not say."""

    base_name: str
    default_size: int  # pixels, square
    resize: ResizeRule
    point_offset: float


TRAITS: dict[Family, FamilyTraits] = {
    # sources: RangiLyu/nanodet, nanodet/model/head/gfl_head.py (get_single_level_center_point) and nanodet_plus_head.py
    "nanodet": FamilyTraits("nanodet-m", 320, "letterbox", 0.5),
    "nanodet-plus": FamilyTraits("nanodet-plus-m", 416, "stretch", 0.0),
}


@dataclass(frozen=True)
class Preset:
    """A published model."""

    family: Family
    size: int  # pixels, square


PRESETS = {
    f"{traits.base_name}-{size}": Preset(family, size) for family, traits in TRAITS.items() for size in (320, 416)
}


def find_preset(name: str) -> Preset:
    """The preset of that name; raises InputError that lists the names there are."""
    if name not in PRESETS:
        raise InputError(f"unknown model {name!r}: expected one of {', '.join(PRESETS)}, or leave out --model")
    return PRESETS[name]


def size_from_name(path: Path) -> int | None:
    """The input size that a checkpoint's file name ends in or mentions, as in ``nanodet_m_416.ckpt``."""
    found = re.findall(r"(?<!\d)(320|416)(?!\d)", path.stem)
    return int(found[-1]) if found else None


def class_names_for(num_classes: int, given: tuple[str, ...] | None) -> tuple[str, ...]:
    """The class names of a detector: those given, COCO's for 80 classes, else ``class_0`` ...

    Raises:
        InputError: another number of names was given than the detector has classes.
    """
    if given is not None:
        if len(given) != num_classes:
            raise InputError(f"{len(given)} class names for a checkpoint of {num_classes} classes. Correct --classes")
        return given
    if num_classes == len(COCO_CLASSES):
        return COCO_CLASSES
    return tuple(f"class_{i}" for i in range(num_classes))


def check_size(input_hw: tuple[int, int]) -> tuple[int, int]:
    """Return ``input_hw`` if the network can take it, else raise InputError."""
    if any(side < SIZE_STEP or side % SIZE_STEP for side in input_hw):
        raise InputError(
            f"input size {input_hw[0]} x {input_hw[1]}: height and width must be multiples of {SIZE_STEP}. "
            f"Nearest: --input-size {' '.join(str(max(1, round(side / SIZE_STEP)) * SIZE_STEP) for side in input_hw)}"
        )
    return input_hw


def describe(
    detector: NanoDet,
    *,
    input_hw: tuple[int, int],
    class_names: tuple[str, ...] | None = None,
    source_sha256: str = "",
) -> ModelSpec:
    """The spec of an exported float32 detector without NMS; the exporter changes precision and NMS as it goes.

    Args:
        detector: in eval mode.
        input_hw: (height, width) in pixels, multiples of 32.
        class_names: one per class; see :func:`class_names_for` for the default.
        source_sha256: of the checkpoint.
    """
    config = detector.config
    traits = TRAITS[config.family]
    height, width = check_size(input_hw)
    return ModelSpec(
        name=f"{traits.base_name}-{height}" if height == width else f"{traits.base_name}-{height}x{width}",
        family=config.family,
        class_names=class_names_for(config.num_classes, class_names),
        input_hw=(height, width),
        resize=traits.resize,
        mean_bgr=MEAN_BGR,
        std_bgr=STD_BGR,
        strides=config.strides,
        reg_max=config.reg_max,
        point_offset=traits.point_offset,
        nms="none",
        source_sha256=source_sha256,
    )
