"""Settings of a training run, read from a TOML file; ``train/configs`` has examples.

Relative paths of data and weights start at the data folder (``GFL_EDGE_DATA``), the output folder at the current one.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from calib.histogram import Method
from gfl_edge.errors import InputError
from gfl_edge.zoo.catalogue import CATALOGUE
from train.data.config import DataConfig
from train.models.gfl import GFLConfig
from train.models.nanodet import NanoDetConfig
from train.plain_values import build, parse_toml
from train.weights.find import data_folder

SECTIONS = ("model", "data", "optimizer", "schedule", "loss", "quantize", "train")


MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class ModelConfig:
    """The network, and the weights it starts from. Its number of classes is that of the data."""

    name: str | None = None  # what exported files are called, before their size; default: the architecture's
    published: str | None = None  # a name of train/configs/models, or a file like those
    nanodet: NanoDetConfig | None = None  # or the fields of a NanoDet
    gfl: GFLConfig | None = None  # or those of a GFL
    # Checkpoint of a detector, or the name of published weights; without the fields above, it says the architecture too
    weights: Path | None = None
    backbone_weights: Path | None = None  # or of a backbone trained on ImageNet
    imagenet: bool = False  # or those of EfficientNet-Lite0 that come with the extra "train"

    def __post_init__(self) -> None:
        if self.name is not None and not MODEL_NAME.fullmatch(self.name):
            raise ValueError(f"name {self.name!r}: files are called so; take letters, digits, '-', '_' and '.'")
        named = [name for name in ("published", "nanodet", "gfl") if getattr(self, name) is not None]
        if len(named) > 1:
            raise ValueError(f"{named[1]}: the architecture is given by {named[0]} already; leave one out")
        if not named and self.weights is None:
            raise ValueError("published, nanodet, gfl or weights is missing: one of them says which network to train")
        given = [name for name in ("weights", "backbone_weights", "imagenet") if getattr(self, name)]
        if len(given) > 1:
            raise ValueError(f"{given[1]}: the backbone's weights are given by {given[0]} already; leave one out")


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer. The defaults are mmdetection's for GFL and 16 images a step; nothing is scaled by the batch."""

    kind: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.01  # after warm-up
    weight_decay: float = 1e-4
    decay_norms: bool = True  # whether biases and norms (parameters of one dimension) decay, too
    backbone_lr_factor: float = 1.0  # the backbone's lr in parts of lr
    momentum: float = 0.9  # sgd
    nesterov: bool = False  # sgd
    betas: tuple[float, float] = (0.9, 0.999)  # adamw

    def __post_init__(self) -> None:
        _check_above("lr", self.lr, 0)
        for name in ("weight_decay", "backbone_lr_factor", "momentum"):
            _check_from(name, getattr(self, name), 0)


@dataclass(frozen=True)
class ScheduleConfig:
    """How the learning rate changes."""

    kind: Literal["constant", "step", "cosine"] = "step"
    warmup_steps: int = 500  # of the optimizer, in which lr rises linearly
    warmup_start: float = 0.001  # part of lr in the first step
    milestones: tuple[int, ...] = ()  # step: epochs, counted from 0, that start with a lower lr
    gamma: float = 0.1  # step: factor of lr at each milestone
    final: float = 0.0  # cosine: part of lr that is reached at the end

    def __post_init__(self) -> None:
        _check_from("warmup_steps", self.warmup_steps, 0)
        for name in ("warmup_start", "final", "gamma"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} {getattr(self, name)}: expected 0..1")
        if list(self.milestones) != sorted(set(self.milestones)) or any(epoch < 1 for epoch in self.milestones):
            raise ValueError(f"milestones {list(self.milestones)}: expected rising epochs from 1 on")
        if self.milestones and self.kind != "step":
            raise ValueError(f"milestones {list(self.milestones)}: they go with kind 'step', not {self.kind!r}")


@dataclass(frozen=True)
class LossConfig:
    """Changes to the family's own criterion, see :class:`train.objective.criterion.CriterionConfig`."""

    assigner: Literal["atss", "dynamic_soft_label"] | None = None
    topk: int | None = None  # candidates per object
    anchor_scale: float | None = None  # sides of ATSS' anchors in strides
    iou_factor: float | None = None  # weight of the IoU in the costs of dynamic_soft_label
    cls_weight: float | None = None
    giou_weight: float | None = None
    dfl_weight: float | None = None
    centerness_weight: float | None = None


@dataclass(frozen=True)
class QuantizeConfig:
    """Fake quantization, see :mod:`train.quantize`. It fine-tunes trained weights, with a low lr for few epochs."""

    enabled: bool = False
    calibration_batches: int = 8  # of the first epoch, from which the ranges of activations are found
    method: Method = "entropy"  # by which they are

    def __post_init__(self) -> None:
        _check_from("calibration_batches", self.calibration_batches, 1)


@dataclass(frozen=True)
class TrainConfig:
    """The loop."""

    output: Path  # folder of checkpoints and logs
    epochs: int = 12
    batch: int = 16  # images per batch, of all processes together
    accumulate: int = 1  # batches per step of the optimizer
    clip_norm: float | None = None  # longest gradient, L2 over all parameters
    amp: Literal["none", "bf16", "fp16"] = "none"  # arithmetic of the network; losses are always float32
    device: str = "auto"  # "cpu", "cuda", "cuda:1" ...; auto: a GPU where there is one
    threads: int | None = None  # of PyTorch on the CPU; default one per core
    channels_last: bool = False  # memory format; faster on GPUs with amp
    compile: bool = False  # torch.compile
    sync_batchnorm: bool = False  # statistics over all processes; GPUs alone
    ema_decay: float | None = None  # average the weights; it is the average that is evaluated and kept
    seed: int = 0
    workers: int = 0  # processes that prepare batches; 0: none but the training itself
    first_images: int | None = None  # of each set, to try things out; default all
    evaluate_every: int = 1  # epochs; also after the last one; 0: never
    evaluation_batch: int = 8  # images, per process
    checkpoint_steps: int | None = None  # write last.pt every so many steps, besides after each epoch
    freeze_stages: int = -1  # the backbone's stem and so many stages are not trained; -1: all are
    norm_eval: bool = False  # the backbone's batch norms keep their statistics
    auxiliary: bool = False  # NanoDet-Plus' second head, in training alone
    auxiliary_detach_epoch: int | None = None  # from then on, counted from 0, it no longer trains backbone and neck

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "accumulate", "evaluation_batch"):
            _check_from(name, getattr(self, name), 1)
        for name in ("seed", "workers", "evaluate_every"):
            _check_from(name, getattr(self, name), 0)
        for name in ("threads", "first_images", "checkpoint_steps"):
            _check_from(name, getattr(self, name), 1)
        _check_from("freeze_stages", self.freeze_stages, -1)
        _check_above("clip_norm", self.clip_norm, 0)
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ValueError(f"ema_decay {self.ema_decay}: expected between 0 and 1, such as 0.9998")
        if self.auxiliary_detach_epoch is not None and not self.auxiliary:
            raise ValueError("auxiliary_detach_epoch: there is no auxiliary head; set auxiliary = true as well")


@dataclass(frozen=True)
class Config:
    """Everything about a training run; one table of the file per field."""

    model: ModelConfig
    data: DataConfig
    train: TrainConfig
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    quantize: QuantizeConfig = field(default_factory=QuantizeConfig)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], folder: Path | None = None) -> Config:
        """Build a configuration from plain values.

        Args:
            values: a mapping per section.
            folder: where relative paths of data and weights start; default the data folder.

        Raises:
            InputError: unknown sections or fields, missing fields, impossible values; names the field.
        """
        folder = data_folder() if folder is None else folder
        unknown = sorted(values.keys() - set(SECTIONS))
        missing = [name for name in ("model", "data", "train") if name not in values]
        if unknown or missing:
            raise InputError(
                f"sections missing: {', '.join(missing) or 'none'}; unknown: {', '.join(unknown) or 'none'}. "
                f"Known: {', '.join(SECTIONS)}"
            )
        _refuse_num_classes(values["model"])
        config = cls(
            model=_build_model(values["model"], folder),
            data=DataConfig.from_dict(values["data"], "data", folder),
            train=build(TrainConfig, values["train"], "train"),
            optimizer=build(OptimizerConfig, values.get("optimizer", {}), "optimizer"),
            schedule=build(ScheduleConfig, values.get("schedule", {}), "schedule"),
            loss=build(LossConfig, values.get("loss", {}), "loss"),
            quantize=build(QuantizeConfig, values.get("quantize", {}), "quantize"),
        )
        if config.quantize.enabled:
            _check_quantizable(config)
        return config

    def to_dict(self) -> dict[str, Any]:
        """Plain values: texts, numbers, lists and mappings; fields that are None are left out."""
        plain: dict[str, Any] = _plain(dataclasses.asdict(self))
        for table in ("nanodet", "gfl"):
            plain["model"].get(table, {}).pop("num_classes", None)  # the data's, see _refuse_num_classes
        return plain


def _build_model(values: Mapping[str, Any], folder: Path) -> ModelConfig:
    model: ModelConfig = build(ModelConfig, values, "model", folder)
    # A name is no path, which would start at the folder
    return replace(model, weights=Path(values["weights"])) if values.get("weights") in CATALOGUE else model


def read_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a TOML file.

    Args:
        path: the file.
        overrides: texts ``section.field=value``, values as in TOML, which replace those of the file.

    Raises:
        InputError: no such file, no TOML, or what :meth:`Config.from_dict` refuses.
        MissingDependencyError: Python 3.10, which has no TOML reader.
    """
    path = Path(path)
    if not path.is_file():
        examples = ", ".join(sorted(file.name for file in EXAMPLES.glob("*.toml")))
        raise InputError(f"{path}: no such configuration. Those in train/configs: {examples}")
    try:
        values = parse_toml(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise InputError(f"{path} is no TOML: {error}") from error
    for text in overrides:
        _merge(values, _parse_override(text))
    try:
        return Config.from_dict(values)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


EXAMPLES = Path(__file__).resolve().parent / "configs"


def _parse_override(text: str) -> dict[str, Any]:
    """``train.epochs=3`` as nested mappings; a line of TOML with dotted keys is exactly that."""
    try:
        return parse_toml(text)
    except ValueError as error:
        raise InputError(
            f"--set {text}: expected section.field=value with a TOML value, such as train.epochs=3 or, with quotes "
            f"for the shell, 'train.amp=\"bf16\"' ({error})"
        ) from error


def _merge(values: dict[str, Any], changes: Mapping[str, Any]) -> None:
    """Replace in ``values`` what ``changes`` names; tables are merged, lists are not."""
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(values.get(key), dict):
            _merge(values[key], value)
        else:
            values[key] = value


def _refuse_num_classes(model: Any) -> None:
    for table in ("nanodet", "gfl"):
        if isinstance(model, Mapping) and "num_classes" in (model.get(table) or {}):
            raise InputError(f"model.{table}.num_classes: leave it out, the data say it; choose with data.classes")


def _check_quantizable(config: Config) -> None:
    if config.model.weights is None:
        raise InputError("model.weights: missing; quantize.enabled fine-tunes the weights of a trained detector")
    for name in ("auxiliary", "sync_batchnorm", "compile"):
        if getattr(config.train, name):
            raise InputError(f"train.{name}: not with quantize.enabled; leave it out")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _check_from(name: str, value: float | None, least: float) -> None:
    if value is not None and not value >= least:
        raise ValueError(f"{name} {value}: expected {least:g} or more")


def _check_above(name: str, value: float | None, bound: float) -> None:
    if value is not None and not value > bound:
        raise ValueError(f"{name} {value}: expected more than {bound:g}")
