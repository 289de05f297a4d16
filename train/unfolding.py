"""Batch norms that normalize nothing, made to normalize again before training.

Weights that went through an inference format, or through fake quantization, have batch norms that do nothing: mean 0,
variance 1, weight 1. In training mode they would normalize by the statistics of the batch, which is another network: it
forgets what it knew in a few steps. With the statistics of training images, and a weight and bias that undo them, the
network computes what it did in eval mode, and nearly the same in training mode.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from train.distributed import Process, mean_over

MARGIN = 0.25  # in parts of epsilon, by which variance plus epsilon may differ from 1


def neutral_norms(network: nn.Module) -> list[_BatchNorm]:
    """The batch norms of a network that normalize nothing though they were trained; fresh ones are none of them."""
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm) and module.affine]
    return [norm for norm in norms if norm.track_running_stats and _is_neutral(norm)]


def _is_neutral(norm: _BatchNorm) -> bool:
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None  # it tracks them
    assert variance is not None
    if (mean != 0).any() or (norm.weight != 1).any():
        return False
    if ((variance + norm.eps - 1).abs() < MARGIN * norm.eps).all():
        return True  # as train.models.batch_norm.unfuse_batch_norm writes it
    # Or of another hand, or rounded to FP16: a fresh one is told by its bias, which is the same for all channels
    return bool(((variance - 1).abs() <= 2 * norm.eps).all() and (norm.bias != norm.bias[0]).any())


@torch.no_grad()
def unfold_batch_norms(
    network: nn.Module, norms: Iterable[_BatchNorm], batches: Iterable[Tensor], process: Process
) -> None:
    """Give ``norms`` the statistics of their inputs, and weights and biases by which they compute what they did.

    Args:
        network: takes a batch; run in eval mode, and left in the mode it was in.
        norms: parts of it; those that it does not run stay as they are.
        batches: on its device; of all processes together, each has its own.
        process: this one.
    """
    sums = {norm: torch.zeros(0) for norm in norms}
    hooks = [norm.register_forward_pre_hook(_adding_to(sums)) for norm in sums]
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        for batch in batches:
            network(batch)
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes.items():
            module.training = mode
    for norm, found in sums.items():
        if found.numel():
            count, total, squares = mean_over(found, process)
            mean = total / count
            _set_statistics(norm, mean, (squares / count - mean**2).clamp(min=0))


def _adding_to(sums: dict[_BatchNorm, Tensor]) -> Callable[[_BatchNorm, tuple[Tensor, ...]], None]:
    """A hook that adds up count, sum and sum of squares ``[3, C]`` of a batch norm's input, float64."""

    def add(norm: _BatchNorm, inputs: tuple[Tensor, ...]) -> None:
        values = inputs[0].detach().float()
        axes = [axis for axis in range(values.ndim) if axis != 1]
        count = values.numel() / values.shape[1]
        variance, mean = (part.double() for part in torch.var_mean(values, axes, correction=0))
        found = torch.stack((torch.full_like(mean, count), count * mean, count * (variance + mean**2)))
        sums[norm] = sums[norm] + found if sums[norm].numel() else found

    return add


def _set_statistics(norm: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    factor = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    norm.bias.add_(factor * (mean - norm.running_mean))
    norm.weight.copy_(factor * (variance + norm.eps).sqrt())
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)
