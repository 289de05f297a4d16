"""Settings of a training run, read from a TOML file; ``train/configs`` has examples.

Relative paths are looked for beside the file, then in the working directory; those of the data start at ``data.root``
where it is given. ``$GFL_EDGE_DATA`` at the start of a path is the data folder (see :mod:`train.weights.find`). The
output starts at the working directory.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ValidationInfo

from calib.histogram import Method
from gfl_edge.errors import InputError
from gfl_edge.parsing.fields import Count, Limits, Natural, NotNegative, Positive, Share
from gfl_edge.parsing.validation import build
from gfl_edge.zoo.catalogue import CATALOGUE
from train.data.config import DataConfig
from train.models.gfl import GFLConfig
from train.models.nanodet import NanoDetConfig
from train.settings import InputPath, OutputPath, Places, parse_toml, places, read_toml

MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def _find_unless_named(path: Path, info: ValidationInfo) -> Path:
    """A name of published weights is no path, nor is that of a published model, which is the same."""
    if str(path) in CATALOGUE:
        return path
    try:
        return places(info).find(path)
    except ValueError as error:
        raise ValueError(f"{error}. Nor is it a name of published ones: {', '.join(CATALOGUE)}") from error


NamedOrPath = Annotated[OutputPath, AfterValidator(_find_unless_named)]


@dataclass(frozen=True)
class ModelConfig:
    """The network, and the weights it starts from. Its number of classes is that of the data."""

    name: str | None = None  # what exported files are called, before their size; default: the architecture's
    published: NamedOrPath | None = None  # a name of train/configs/models, or a file like those
    nanodet: NanoDetConfig | None = None  # or the fields of a NanoDet
    gfl: GFLConfig | None = None  # or those of a GFL
    # Checkpoint of a detector, or the name of published weights; without the fields above, it says the architecture too
    weights: NamedOrPath | None = None
    backbone_weights: InputPath | None = None  # or of a backbone trained on ImageNet
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
    lr: Positive = 0.01  # after warm-up
    weight_decay: NotNegative = 1e-4
    decay_norms: bool = True  # whether biases and norms (parameters of one dimension) decay, too
    backbone_lr_factor: NotNegative = 1.0  # the backbone's lr in parts of lr
    momentum: NotNegative = 0.9  # sgd
    nesterov: bool = False  # sgd
    betas: tuple[float, float] = (0.9, 0.999)  # adamw


@dataclass(frozen=True)
class ScheduleConfig:
    """How the learning rate changes."""

    kind: Literal["constant", "step", "cosine"] = "step"
    warmup_steps: Natural = 500  # of the optimizer, in which lr rises linearly
    warmup_start: Share = 0.001  # part of lr in the first step
    milestones: tuple[int, ...] = ()  # step: epochs, counted from 0, that start with a lower lr
    gamma: Share = 0.1  # step: factor of lr at each milestone
    final: Share = 0.0  # cosine: part of lr that is reached at the end

    def __post_init__(self) -> None:
        if list(self.milestones) != sorted(set(self.milestones)) or any(epoch < 1 for epoch in self.milestones):
            raise ValueError(f"milestones {list(self.milestones)}: expected rising epochs from 1 on")
        if self.milestones and self.kind != "step":
            raise ValueError(f"milestones {list(self.milestones)}: they go with kind 'step', not {self.kind!r}")


@dataclass(frozen=True)
class LossConfig:
    """Changes to the family's own criterion, see :class:`train.objective.criterion.CriterionConfig` and, for SAPD,
    :class:`train.objective.sapd.SapdConfig`.
    """

    assigner: Literal["atss", "dynamic_soft_label"] | None = None
    topk: int | None = None  # candidates per object
    anchor_scale: float | None = None  # sides of ATSS' anchors in strides
    iou_factor: float | None = None  # weight of the IoU in the costs of dynamic_soft_label
    cls_weight: float | None = None
    giou_weight: float | None = None
    dfl_weight: float | None = None
    centerness_weight: float | None = None
    shrink: Share | None = None  # SAPD: part of an object's sides in which anchor points learn it
    attenuation: NotNegative | None = None  # SAPD: how much less the points count that are far from its center
    max_levels: Count | None = None  # SAPD: levels that learn an object
    iou_weight: NotNegative | None = None  # SAPD
    selection_weight: NotNegative | None = None  # SAPD: of the loss of the meta-selection network


@dataclass(frozen=True)
class QuantizeConfig:
    """Fake quantization, see :mod:`train.quantize`. It fine-tunes trained weights, with a low lr for few epochs."""

    enabled: bool = False
    calibration_batches: Count = 8  # of the first epoch, from which the ranges of activations are found
    method: Method = "entropy"  # by which they are


@dataclass(frozen=True)
class TrainConfig:
    """The loop."""

    output: OutputPath  # folder of checkpoints and logs
    epochs: Count = 12
    batch: Count = 16  # images per batch, of all processes together
    accumulate: Count = 1  # batches per step of the optimizer
    clip_norm: Positive | None = None  # longest gradient, L2 over all parameters
    amp: Literal["none", "bf16", "fp16"] = "none"  # arithmetic of the network; losses are always float32
    device: str = "auto"  # "cpu", "cuda", "cuda:1" ...; auto: a GPU where there is one
    # How long a process waits for the others of a run before it gives up; default 10 minutes on GPUs, 30 on CPUs
    timeout_s: Count | None = None
    threads: Count | None = None  # of PyTorch on the CPU; default one per core
    channels_last: bool = False  # memory format; faster on GPUs with amp
    compile: bool = False  # torch.compile
    sync_batchnorm: bool = False  # statistics over all processes; only on GPUs
    # Average the weights, such as by 0.9998; it is the average that is evaluated and kept
    ema_decay: Annotated[float, Limits(gt=0, lt=1)] | None = None
    seed: Natural = 0
    workers: Natural = 0  # processes that prepare batches; 0: none but the training itself
    first_images: Count | None = None  # of each set, to try things out; default all
    evaluate_every: Natural = 1  # epochs; also after the last one; 0: never
    evaluation_batch: Count = 8  # images, per process
    checkpoint_steps: Count | None = None  # write last.pt every so many steps, besides after each epoch
    # The backbone's stem and so many stages are not trained; -1: all are
    freeze_stages: Annotated[int, Limits(ge=-1)] = -1
    norm_eval: bool = False  # the backbone's batch norms keep their statistics
    auxiliary: bool = False  # NanoDet-Plus' second head, only in training
    auxiliary_detach_epoch: int | None = None  # from then on, counted from 0, it no longer trains backbone and neck
    # SAPD: until then, counted from 0, only the level of the least loss learns an object; default: half of the epochs
    soft_levels_epoch: Natural | None = None

    def __post_init__(self) -> None:
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

    def __post_init__(self) -> None:
        if not self.quantize.enabled:
            return
        if self.model.weights is None:
            raise ValueError("model.weights: missing; quantize.enabled fine-tunes the weights of a trained detector")
        for name in ("auxiliary", "sync_batchnorm", "compile"):
            if getattr(self.train, name):
                raise ValueError(f"train.{name}: not with quantize.enabled; leave it out")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], folder: Path | None = None) -> Config:
        """Build a configuration from plain values.

        Args:
            values: a mapping per section.
            folder: that of the file they come from, see :class:`train.settings.Places`.

        Raises:
            InputError: unknown or missing fields, impossible values, paths that are not there; names the field.
        """
        model = values.get("model")
        for table in ("nanodet", "gfl"):
            if isinstance(model, Mapping) and "num_classes" in (model.get(table) or {}):
                raise InputError(f"model.{table}.num_classes: leave it out, the data say it; choose with data.classes")
        return build(cls, values, "", Places(folder).with_root(values.get("data")))

    def to_dict(self) -> dict[str, Any]:
        """Plain values: texts, numbers, lists and mappings; fields that are None are left out."""
        plain: dict[str, Any] = _plain(dataclasses.asdict(self))
        for table in ("nanodet", "gfl"):
            plain["model"].get(table, {}).pop("num_classes", None)  # the data's, see from_dict
        return plain


def read_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a TOML file.

    Args:
        path: the file.
        overrides: texts ``section.field=value``, values as in TOML, which replace those of the file.

    Raises:
        InputError: no such file, no TOML, or what :meth:`Config.from_dict` refuses.
    """
    path = Path(path)
    if not path.is_file():
        examples = ", ".join(sorted(file.name for file in EXAMPLES.glob("*.toml")))
        raise InputError(f"{path}: no such configuration. Those in train/configs: {examples}")
    values = read_toml(path)
    for text in overrides:
        try:
            changes = parse_toml(text)  # dotted keys are nested tables
        except ValueError as error:
            raise InputError(
                f"--set {text}: expected section.field=value with a TOML value, such as train.epochs=3 or, with quotes "
                f"for the shell, 'train.amp=\"bf16\"' ({error})"
            ) from error
        _merge(values, changes)
    try:
        return Config.from_dict(values, path.parent)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


EXAMPLES = Path(__file__).resolve().parent / "configs"


def _merge(values: dict[str, Any], changes: Mapping[str, Any]) -> None:
    """Replace in ``values`` what ``changes`` names; tables are merged, lists are not."""
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(values.get(key), dict):
            _merge(values[key], value)
        else:
            values[key] = value


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
