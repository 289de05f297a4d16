"""From a detector in PyTorch to the description that travels with its exported file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from gfl_edge.annotations.coco import COCO_CLASSES
from gfl_edge.errors import InputError
from gfl_edge.files import sha256
from gfl_edge.spec import SIZE_STEP, ModelSpec
from train.checkpoint import describe_weights
from train.models.detector import Detector, DetectorConfig
from train.models.gfl import GFLConfig
from train.models.nanodet import NanoDetConfig
from train.models.published import model_files, read_model_file
from train.models.traits import TRAITS, Family

NANODET_NAMES: dict[Family, str] = {"nanodet": "nanodet-m", "nanodet-plus": "nanodet-plus-m"}
SHUFFLENET_1X = NanoDetConfig("nanodet").stage_channels


@dataclass(frozen=True)
class Preset:
    """A published model."""

    family: Family
    input_hw: tuple[int, int]  # pixels
    architecture: GFLConfig | None = None  # to be met exactly; None: any of the family


PRESETS = {
    f"{name}-{size}": Preset(family, (size, size)) for family, name in NANODET_NAMES.items() for size in (320, 416)
}


def find_preset(name: str) -> Preset:
    """The preset of that name; raises InputError that lists the names there are."""
    if name in PRESETS:
        return PRESETS[name]
    published = model_files()
    if name not in published:
        names = ", ".join((*PRESETS, *published))
        raise InputError(f"unknown model {name!r}: expected one of {names}, or leave out --model")
    architecture = read_model_file(name).architecture
    return Preset(architecture.family, TRAITS[architecture.family].default_hw, architecture)


def check_architecture(detector: Detector, preset: Preset, name: str) -> None:
    """Raise InputError unless ``detector`` is the published model called ``name``."""
    if preset.architecture is not None and detector.config != preset.architecture:
        raise InputError(
            f"the checkpoint is {detector.config}, {name} is {preset.architecture}. "
            "Leave out --model to have it recognized"
        )


def size_from_name(path: Path) -> tuple[int, int] | None:
    """The input size that a checkpoint's file name ends in or mentions, as in ``nanodet_m_416.ckpt``."""
    found = re.findall(r"(?<!\d)(320|416)(?!\d)", path.stem)
    return (int(found[-1]), int(found[-1])) if found else None


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


def architecture_name(config: DetectorConfig) -> str:
    """``nanodet-plus-m``, ``nanodet-m-1.5x``, ``gfl-r50``, ``gflv2-x101-32x4d-dcn`` ..."""
    if isinstance(config, GFLConfig):
        backbone = config.backbone if config.backbone != "resnet" else f"r{config.depth}"
        if config.backbone == "resnet" and config.groups > 1:
            backbone = f"x{config.depth}-{config.groups}x{config.base_width}d"
        return f"{config.family}-{backbone}" + ("-dcn" if config.dcn and any(config.dcn_stages) else "")
    assert isinstance(config, NanoDetConfig)
    width = config.stage_channels[0] / SHUFFLENET_1X[0]
    return NANODET_NAMES[config.family] + ("" if width == 1 else f"-{width:.1f}x")


def describe(
    detector: Detector,
    *,
    input_hw: tuple[int, int],
    class_names: tuple[str, ...] | None = None,
    source_sha256: str = "",
    short_long: tuple[int, int] | None = None,
    name: str | None = None,
) -> ModelSpec:
    """The spec of an exported float32 detector without NMS; the exporter changes precision and NMS as it goes.

    Args:
        detector: in eval mode.
        input_hw: (height, width) in pixels, multiples of 32.
        class_names: one per class; see :func:`class_names_for` for the default.
        source_sha256: of the checkpoint.
        short_long: pixels of the shorter and the longer side of a frame where the input size is to be dynamic.
        name: what stands before the size; default: the architecture's.

    Raises:
        InputError: a size that the network cannot take, or a dynamic one for a family that is not run so.
    """
    config = detector.config
    traits = TRAITS[config.family]
    height, width = check_size(input_hw)
    if short_long is not None and traits.resize != "fit":
        raise InputError(f"{config.family} detectors run at a fixed size ({traits.resize}). Leave out --dynamic")
    size = f"{height}" if height == width else f"{height}x{width}"
    return ModelSpec(
        name=f"{name or architecture_name(config)}-" + ("dynamic-{}-{}".format(*short_long) if short_long else size),
        family=config.family,
        class_names=class_names_for(config.num_classes, class_names),
        input_hw=(height, width),
        resize=traits.resize,
        mean_bgr=traits.mean_bgr,
        std_bgr=traits.std_bgr,
        strides=config.strides,
        reg_max=config.reg_max,
        point_offset=traits.point_offset,
        nms="none",
        source_sha256=source_sha256,
        short_long=short_long,
    )


def describe_checkpoint(
    detector: Detector,
    weights: Path,
    *,
    input_hw: tuple[int, int] | None = None,
    class_names: tuple[str, ...] | None = None,
    short_long: tuple[int, int] | None = None,
) -> ModelSpec:
    """The spec of the detector in a checkpoint file, see :func:`describe`.

    What is not given is what a checkpoint of our own was trained with, what its file name says, or the family's.
    """
    own = describe_weights(weights)
    trained = own.config["data"] if own else {}
    model = own.config["model"] if own else {}
    if short_long is None and input_hw is None and trained.get("short_long"):
        short, long = trained["short_long"]
        short_long = (short, long)
    trained_hw = tuple(trained["input_hw"]) if own else size_from_name(weights)
    return describe(
        detector,
        input_hw=input_hw or trained_hw or TRAITS[detector.config.family].default_hw,
        class_names=class_names or (own.class_names if own else None),
        source_sha256=sha256(weights),
        short_long=short_long,
        name=model.get("name"),
    )
