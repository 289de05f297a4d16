"""The exponential moving average of a network's weights, which is smoother than the weights themselves."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class WeightAverage:
    """Keeps ``average = d * average + (1 - d) * weights``, parameters and float buffers alike.

    The average starts as the weights, so early on d is smaller than ``decay``: the least of ``decay`` and
    ``(1 + n) / (10 + n)`` in update n, counted from 1, as in TensorFlow's ExponentialMovingAverage.

    Args:
        network: whose weights are averaged.
        decay: between 0 and 1.

    Attributes:
        network: a copy in eval mode with the averages; without gradients.
        updates: how many there were.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.network = copy.deepcopy(network).eval().requires_grad_(False)

    def decay_at(self, update: int) -> float:
        """The decay of an update, counted from 1."""
        return min(self.decay, (1 + update) / (10 + update))

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take the present weights of ``network`` in. Counters, which are whole numbers, are copied."""
        self.updates += 1
        weight = 1 - self.decay_at(self.updates)
        for averages, values in ((self.network.parameters(), network.parameters()), _buffers(self.network, network)):
            for average, value in zip(averages, values, strict=True):
                if average.is_floating_point():
                    average.lerp_(value.detach(), weight)
                else:
                    average.copy_(value)


def _buffers(average: nn.Module, network: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    return list(average.buffers()), list(network.buffers())
