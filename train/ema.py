"""The exponential moving average of a network's weights, which is smoother than the weights themselves."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def decay_at(update: int, decay: float) -> float:
    """The decay of an update, counted from 1: smaller than ``decay`` early on, as the average starts as the weights.

    That is ``(1 + n) / (10 + n)`` in update n, as in TensorFlow's ExponentialMovingAverage.
    """
    return min(decay, (1 + update) / (10 + update))


def start_average(network: nn.Module, decay: float) -> AveragedModel:
    """A copy of ``network`` that keeps ``average = d * average + (1 - d) * weights`` by ``update_parameters(network)``.

    Float buffers are averaged like parameters; counters, which are whole numbers, are copied.

    Args:
        network: whose weights are averaged.
        decay: d, between 0 and 1, see :func:`decay_at`.

    Returns:
        The average, with the weights so far; its ``module`` is in eval mode and without gradients.
    """

    @torch.no_grad()
    def take_in(averages: Sequence[Tensor], values: Sequence[Tensor], updates: Tensor | int) -> None:
        weight = 1 - decay_at(int(updates), decay)
        for average, value in zip(averages, values, strict=True):
            if average.is_floating_point():
                average.lerp_(value, weight)
            else:
                average.copy_(value)

    average = AveragedModel(network, multi_avg_fn=take_in, use_buffers=True)
    average.eval().requires_grad_(False)
    average.update_parameters(network)  # the first only copies, so that later ones count from 1
    return average
