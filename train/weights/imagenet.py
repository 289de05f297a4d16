"""Backbones pretrained on ImageNet: torchvision's, open-mmlab's ResNeXt, EfficientNet-Lite0's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from gfl_edge.adopt.families import IMAGENET_MEAN_BGR, IMAGENET_STD_BGR, LITE_MEAN, LITE_STD
from train.models.detector import Detector
from train.weights.keys import copy_strictly
from train.weights.reading import StateDict
from train.weights.unwrapping import read_state_dict, unwrap

PREFIX = "backbone."
# The classifier: of ResNet and ShuffleNetV2 in torchvision, of EfficientNet-Lite, of RangiLyu/EfficientNet-Lite
UNUSED_KEYS = re.compile(r"(fc|conv5|_conv_head|_bn1|_fc|head)\.")
# Offsets of deformable convolutions, which ImageNet training does not have
OPTIONAL_KEYS = re.compile(r".*\.(num_batches_tracked|conv2\.conv_offset\.(weight|bias))$")

LITE_CLASSIFIER = "_fc.weight"
LITE_STEM, LITE_STEM_MEAN = "_conv_stem.weight", "_bn0.running_mean"


def load_backbone(detector: Detector, source: str | Path | Mapping[str, Tensor]) -> None:
    """Copy pretrained weights into the backbone of ``detector``; its classifier is left out.

    The weights then fit an input that is normalized as :mod:`train.models.traits` says, which is how torchvision's were
    trained; the stem of EfficientNet-Lite, which was not, is converted.

    Args:
        detector: neck, head and the offsets of deformable convolutions keep their values.
        source: a checkpoint file, or its state dict. Where keys start with ``backbone.``, as in the checkpoints of
            mmpretrain and of whole detectors, only these are taken.

    Raises:
        CheckpointError: unreadable, of another backbone, or with missing, unexpected or misshapen keys (listed).
    """
    origin, raw = ("state dict", source) if isinstance(source, Mapping) else (str(source), read_state_dict(source))
    state = _convert_lite(unwrap(raw))
    inner = {key.removeprefix(PREFIX): value for key, value in state.items() if key.startswith(PREFIX)}
    given = {key: value for key, value in (inner or state).items() if not UNUSED_KEYS.match(key)}
    name = type(detector.backbone).__name__
    copy_strictly(detector.backbone, given, f"{origin} does not fit the backbone {name}", OPTIONAL_KEYS)


def _convert_lite(state: StateDict) -> StateDict:
    """Fold the other normalization of an EfficientNet-Lite classifier into its stem; other weights stay as they are.

    Exact except for the zeros around the image, which stand for another gray than in training.
    """
    if not {LITE_CLASSIFIER, LITE_STEM, LITE_STEM_MEAN} <= state.keys():
        return state
    weight = state[LITE_STEM].float()
    mean, std = (torch.tensor(values[::-1])[:, None, None] for values in (IMAGENET_MEAN_BGR, IMAGENET_STD_BGR))
    shift = (weight * (mean - LITE_MEAN) / LITE_STD).sum(dim=(1, 2, 3))
    return {**state, LITE_STEM: weight * std / LITE_STD, LITE_STEM_MEAN: state[LITE_STEM_MEAN] - shift}
