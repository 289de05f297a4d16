"""Whether the values of a checkpoint are weights that a training can have left behind."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from gfl_edge.errors import CheckpointError
from train.weights.naming import short

logger = logging.getLogger(__name__)

# Whole numbers in a network of floats: how many batches were seen, and the bins of a distribution
WHOLE_NUMBERS = re.compile(r".*\.(num_batches_tracked|project)$")
# May be zero: offsets start so, and of a RepVGG that was converted one branch holds everything
OFFSETS = re.compile(r".*\.(conv_offset|rbr_1x1\.0)\.weight$")
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
MAX_LISTED = 5


def check_kinds(state: Mapping[str, Tensor], origin: str) -> None:
    """Raise CheckpointError unless all tensors are floats in memory, of any precision."""
    wrong = {key: kind for key, value in state.items() if (kind := _kind(key, value))}
    if wrong:
        raise CheckpointError(
            f"{origin}: {len(wrong)} of {len(state)} tensors are no plain floats: {_listed(wrong)}. Expected weights "
            "in float32, float16 or bfloat16: give the checkpoint from before it was quantized or converted"
        )


def _kind(key: str, value: Tensor) -> str | None:
    """What is wrong with a tensor for a weight; None: nothing."""
    if value.is_meta:
        return "without values (device meta)"
    if value.is_quantized:
        return f"quantized ({value.dtype})"
    if value.layout != torch.strided:
        return f"sparse ({value.layout})"
    if value.dtype in FLOATS or (WHOLE_NUMBERS.match(key) and not value.is_complex()):
        return None
    return str(value.dtype)


def check_values(state: Mapping[str, Tensor], origin: str) -> None:
    """Look for what a training that failed leaves behind; convolutions of one value are named in the log.

    Raises:
        CheckpointError: NaN or infinity, variances below zero, or convolutions that are all of one value each.
    """
    counts = {key: int((~torch.isfinite(value.float())).sum()) for key, value in state.items()}
    broken = {key: f"{count} of {state[key].numel()} values" for key, count in counts.items() if count}
    if broken:
        raise CheckpointError(
            f"{origin}: {len(broken)} of {len(state)} tensors hold NaN or infinity: {_listed(broken)}. The weights are "
            "broken, not the export: take a checkpoint from before the training diverged, or copy the file again"
        )
    negative = {
        key: f"{float(value.min()):.3g}"
        for key, value in state.items()
        if key.endswith(".running_var") and value.numel() and value.min() < 0
    }
    if negative:
        raise CheckpointError(
            f"{origin}: variances of batch norms are below 0: {_listed(negative)}. Expected 0 or more: train again"
        )
    kernels = {
        key: value.flatten()
        for key, value in state.items()
        if value.dim() == 4 and value.numel() > 1 and not OFFSETS.match(key)
    }
    constant = {key: f"all {float(value[0]):g}" for key, value in kernels.items() if bool((value == value[0]).all())}
    if constant and len(constant) == len(kernels):
        raise CheckpointError(
            f"{origin}: every convolution holds one value, such as {_listed(constant)}: it was never trained, or saved "
            "before its weights were loaded. Give a trained checkpoint"
        )
    if constant:
        logger.warning("%s: convolutions of one value, which pass nothing on: %s", origin, _listed(constant))


def _listed(named: Mapping[str, str]) -> str:
    shown = [f"{short(key)} ({what})" for key, what in list(named.items())[:MAX_LISTED]]
    return ", ".join(shown) + (f" and {len(named) - MAX_LISTED} more" if len(named) > MAX_LISTED else "")
