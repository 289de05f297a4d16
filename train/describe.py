"""From a detector in PyTorch to the description that travels with its exported file."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, replace
from pathlib import Path

from gfl_edge.errors import InputError
from gfl_edge.evaluation.coco import COCO_CLASSES
from gfl_edge.files import sha256
from gfl_edge.spec import SIZE_STEP, ModelSpec
from gfl_edge.zoo.catalogue import CATALOGUE
from train.models.build import Architecture, Network
from train.models.detector import Detector, DetectorConfig, swap_red_and_blue
from train.models.efficientnet_lite import LITE_SIZES, LiteSize
from train.models.gfl import GFLConfig
from train.models.nanodet import PUBLISHED, NanoDetConfig
from train.models.published import model_files, read_model_file
from train.models.repvgg import REPVGG_SIZES
from train.models.tan import STRIDE
from train.models.traits import TRAITS, Family, FamilyTraits
from train.weights.loading import load_detector
from train.weights.mmdet_config import read_mmdet_config, trained_of_mmdet
from train.weights.nanodet_config import STAGE_CHANNELS, config_beside, read_nanodet_config
from train.weights.trained import Trained, trained_of_own
from train.weights.unwrapping import CheckpointFile, read_checkpoint

logger = logging.getLogger(__name__)

NANODET_NAMES: dict[Family, str] = {
    "nanodet": "nanodet-m",
    "nanodet-g": "nanodet-g",
    "nanodet-t": "nanodet-t",
    "nanodet-plus": "nanodet-plus-m",
}
THRESHOLDS = ("iou_threshold", "max_detections")


@dataclass(frozen=True)
class Preset:
    """A published model."""

    family: Family
    input_hw: tuple[int, int]  # pixels
    architecture: Architecture | None = None  # to be met exactly; None: any of the family


PRESETS = {
    f"{NANODET_NAMES[family]}-{size}": Preset(family, (size, size))
    for family in ("nanodet", "nanodet-plus")
    for size in (320, 416)
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
    return Preset(architecture.family, CATALOGUE[name].input_hw, architecture)


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


def class_names_for(num_classes: int, given: tuple[str, ...] | None, origin: str = "--classes") -> tuple[str, ...]:
    """The class names of a detector: those given, COCO's for 80 classes, else ``class_0`` ...

    Raises:
        InputError: another number of names was given than the detector has classes.
    """
    if given is not None:
        if len(given) != num_classes:
            raise InputError(
                f"{origin}: {len(given)} class names for a checkpoint of {num_classes} classes. "
                f"{'Correct' if origin == '--classes' else 'Give the right ones with'} --classes"
            )
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


def default_hw(config: Architecture) -> tuple[int, int]:
    """The input of a detector where nothing says it: of the published one of that architecture, else of its family.

    One that attends to positions has only that of its positions.
    """
    if isinstance(config, NanoDetConfig) and config.attention_hw is not None:
        height, width = config.attention_hw
        return STRIDE * height, STRIDE * width
    sizes = {
        CATALOGUE[name].input_hw
        for name in model_files()
        if replace(read_model_file(name).architecture, num_classes=config.num_classes) == config
    }
    return sizes.pop() if len(sizes) == 1 else TRAITS[config.family].default_hw


def architecture_name(config: DetectorConfig) -> str:
    """``nanodet-plus-m``, ``nanodet-m-1.5x``, ``nanodet-efficientlite1``, ``gfl-r50``, ``gflv2-x101-32x4d-dcn`` ..."""
    if isinstance(config, GFLConfig):
        backbone = config.backbone if config.backbone != "resnet" else f"r{config.depth}"
        if config.backbone == "resnet" and config.groups > 1:
            backbone = f"x{config.depth}-{config.groups}x{config.base_width}d"
        return f"{config.family}-{backbone}" + ("-dcn" if config.dcn and any(config.dcn_stages) else "")
    assert isinstance(config, NanoDetConfig)
    if config.family == "nanodet-efficientlite":
        sizes = {size: name.removeprefix("efficientnet_lite") for name, size in LITE_SIZES.items()}
        return config.family + sizes.get(LiteSize(config.stage_channels, config.stage_blocks), "")
    if config.family == "nanodet-repvgg":
        # Detectors have fewer channels in the last stage than classifiers
        forms = {
            (size.stage_channels[:2], size.stage_blocks): f"-{name.lower()}" for name, size in REPVGG_SIZES.items()
        }
        return config.family + forms.get((config.stage_channels[:2], config.stage_blocks), "")
    published = PUBLISHED[config.family].stage_channels
    width = f"{config.stage_channels[0] / published[0]:.1f}x"
    if config.family != "nanodet-g":  # ShuffleNetV2 has sizes of its own
        width = next((size for size, channels in STAGE_CHANNELS.items() if channels == config.stage_channels), width)
    return NANODET_NAMES[config.family] + ("" if config.stage_channels == published else f"-{width}")


def describe(
    detector: Detector,
    *,
    input_hw: tuple[int, int],
    class_names: tuple[str, ...] | None = None,
    source_sha256: str = "",
    short_long: tuple[int, int] | None = None,
    trained: Trained | None = None,
) -> ModelSpec:
    """The spec of an exported float32 detector without NMS; the exporter changes precision and NMS as it goes.

    Args:
        detector: in eval mode.
        input_hw: (height, width) in pixels, multiples of 32.
        class_names: one per class; see :func:`class_names_for` for the default.
        source_sha256: of the checkpoint.
        short_long: pixels of the shorter and the longer side of a frame where the input size is to be dynamic.
        trained: whose name, resize rule, normalization and thresholds to take instead of the family's.

    Raises:
        InputError: a size that the network cannot take, a dynamic one for a family that is not run so, or values of
            ``trained`` that no spec can have.
    """
    config, trained = detector.config, trained or Trained()
    traits = TRAITS[config.family]
    resize = trained.resize or traits.resize
    height, width = check_size(input_hw)
    if isinstance(config, NanoDetConfig) and config.attention_hw is not None and input_hw != default_hw(config):
        own = " x ".join(map(str, default_hw(config)))
        raise InputError(
            f"input size {height} x {width}: this {config.family} attends to the positions of {own} pixels and "
            f"takes no other. Give --input-size {own.replace(' x', '')}"
        )
    if short_long is not None and resize != "fit":
        raise InputError(f"{config.family} detectors run at a fixed size ({resize}). Leave out --dynamic")
    size = f"{height}" if height == width else f"{height}x{width}"
    thresholds = {name: value for name in THRESHOLDS if (value := getattr(trained, name)) is not None}
    score_threshold = ModelSpec.score_threshold if trained.score_threshold is None else trained.score_threshold
    try:
        return ModelSpec(
            name=(trained.name or architecture_name(config))
            + "-"
            + ("dynamic-{}-{}".format(*short_long) if short_long else size),
            family=config.family,
            class_names=class_names_for(config.num_classes, class_names),
            input_hw=(height, width),
            resize=resize,
            mean_bgr=trained.mean_bgr or traits.mean_bgr,
            std_bgr=trained.std_bgr or traits.std_bgr,
            strides=config.strides,
            reg_max=config.reg_max if config.regression == "distribution" else 0,
            point_offset=traits.point_offset,
            nms="none",
            source_sha256=source_sha256,
            short_long=short_long,
            recommended_score=trained.recommended_score,
            score_threshold=score_threshold**traits.threshold_power,
            **thresholds,
        )
    except ValueError as error:
        raise InputError(f"{trained.origin or 'the checkpoint'}: {error}") from error


def with_sigmas(detector: Detector, spec: ModelSpec, origin: str) -> ModelSpec:
    """The spec with the standard deviations of edges.

    Raises:
        InputError: the detector, of the file ``origin``, predicts no distributions.
    """
    if detector.config.regression != "distribution":
        raise InputError(
            f"--uncertainty: {origin} predicts a distance for each edge and no distribution of it, so that nothing "
            "says how sure it is. Leave it out, or take a model with Distribution Focal Loss"
        )
    return replace(spec, edge_sigma=True)


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a caller asks for, which counts before anything that a file says.

    Attributes:
        family: of the checkpoint, see :func:`train.weights.loading.load_detector`.
        config: the configuration that it was trained with; None: what lies in the checkpoint, or nanodet's beside it.
        ema: which weights, see :func:`train.weights.unwrapping.read_checkpoint`.
        input_hw, class_names, short_long: see :func:`describe`.
    """

    family: Family | None = None
    config: Path | None = None
    ema: bool | None = None
    input_hw: tuple[int, int] | None = None
    class_names: tuple[str, ...] | None = None
    short_long: tuple[int, int] | None = None


def load_described(weights: Path, wanted: Wanted | None = None) -> tuple[Network, ModelSpec]:
    """The detector of a checkpoint file and its spec, see :func:`describe`.

    What is not asked for is what it was trained with, as its configuration or the checkpoint itself says, what its file
    name says, or the family's. Where that comes from is logged.

    Raises:
        CheckpointError: see :func:`train.weights.loading.load_detector`.
        InputError: a configuration that cannot be read or contradicts the weights, or see :func:`describe`.
    """
    wanted = wanted or Wanted()
    file = read_checkpoint(weights, wanted.ema)
    detector = load_detector(file, wanted.family)
    traits = TRAITS[detector.config.family]
    trained = find_trained(file, wanted.config, traits)
    trained.check(detector.config, str(weights))
    names = wanted.class_names
    if names is None and trained.class_names is not None:
        names = class_names_for(detector.config.num_classes, trained.class_names, trained.origin)
    short_long = wanted.short_long or (trained.short_long if wanted.input_hw is None else None)
    named_hw = size_from_name(weights) if getattr(detector.config, "attention_hw", None) is None else None
    input_hw = wanted.input_hw or trained.input_hw or named_hw or default_hw(detector.config)
    _log_choices(wanted, trained, detector.config, input_hw)
    if trained.channel_order not in (None, traits.channel_order):
        swap_red_and_blue(detector)
    spec = describe(
        detector,
        input_hw=input_hw,
        class_names=names,
        source_sha256=sha256(weights),
        short_long=short_long,
        trained=trained,
    )
    return detector, spec


def find_trained(file: CheckpointFile, config: Path | None, traits: FamilyTraits) -> Trained:
    """What the training of a checkpoint knew: by ``config``, else by itself, else by nanodet's configuration beside it.

    Raises:
        InputError: a configuration that cannot be read.
    """
    own = trained_of_own(file) or trained_of_mmdet(file)
    if config is None and own is None and traits.channel_order == "bgr":
        config = config_beside(file.path)
    if config is None:
        return own or Trained()
    read = read_mmdet_config if config.suffix == ".py" else read_nanodet_config
    return read(config).or_else(own or Trained())


def _log_choices(wanted: Wanted, trained: Trained, config: DetectorConfig, input_hw: tuple[int, int]) -> None:
    """Say what a file decided, what was asked for instead, and what nothing has decided."""
    if trained.origin:
        logger.info("trained with %s", trained)
    if wanted.class_names is not None and trained.class_names not in (None, wanted.class_names):
        logger.info("--classes replaces the %d class names of %s", len(trained.class_names or ()), trained.origin)
    if wanted.input_hw is not None and trained.input_hw not in (None, wanted.input_hw):
        sizes = (*wanted.input_hw, *(trained.input_hw or ()))
        logger.info("the input of %d x %d that was asked for replaces %d x %d of %s", *sizes, trained.origin)
    if wanted.class_names is None and trained.class_names is None and config.num_classes != len(COCO_CLASSES):
        logger.warning(
            "nothing says what the %d classes are called, so they are numbered, nor how the detector was trained: the "
            "input is %d x %d. Give its configuration with --config FILE, or --classes and --input-size",
            config.num_classes,
            *input_hw,
        )
