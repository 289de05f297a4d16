"""Optimizer and learning rate."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.optim import Optimizer

from train.config import OptimizerConfig, ScheduleConfig

BASE_LR = "base_lr"  # of a parameter group: what the schedule multiplies


def build_optimizer(network: nn.Module, config: OptimizerConfig) -> Optimizer:
    """An optimizer of all parameters of ``network`` that get gradients.

    They are grouped by learning rate and weight decay; parameters whose names start with ``backbone.`` have
    ``backbone_lr_factor``. Each group keeps its rate after warm-up under ``base_lr``.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            lr = config.lr * (config.backbone_lr_factor if name.startswith("backbone.") else 1.0)
            decays = config.decay_norms or parameter.ndim > 1
            groups.setdefault((lr, config.weight_decay if decays else 0.0), []).append(parameter)
    tables = [
        {"params": parameters, "lr": lr, BASE_LR: lr, "weight_decay": decay}
        for (lr, decay), parameters in groups.items()
    ]
    if config.kind == "adamw":
        return torch.optim.AdamW(tables, betas=config.betas)
    return torch.optim.SGD(tables, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov)


class Schedule:
    """The learning rate as a function of the step, so that a resumed run needs to know only the step.

    Args:
        config: its shape.
        steps_per_epoch: of the optimizer.
        epochs: of the whole run.
    """

    def __init__(self, config: ScheduleConfig, steps_per_epoch: int, epochs: int) -> None:
        self.config, self.steps_per_epoch, self.epochs = config, steps_per_epoch, epochs

    def factor(self, step: int) -> float:
        """What the rates are multiplied with in a step, counted from 0: warm-up times decay."""
        config = self.config
        if step >= config.warmup_steps:
            return self._decay(step)
        return self._decay(step) * (config.warmup_start + (1 - config.warmup_start) * step / config.warmup_steps)

    def _decay(self, step: int) -> float:
        config = self.config
        if config.kind == "cosine":
            part = min(1.0, step / (self.steps_per_epoch * self.epochs))
            return config.final + (1 - config.final) * (1 + math.cos(math.pi * part)) / 2
        passed = sum(epoch * self.steps_per_epoch <= step for epoch in config.milestones)
        return config.gamma**passed

    def apply(self, optimizer: Optimizer, step: int) -> float:
        """Set the rates of all groups for a step; returns the highest."""
        factor = self.factor(step)
        for group in optimizer.param_groups:
            group["lr"] = group[BASE_LR] * factor
        return max(float(group["lr"]) for group in optimizer.param_groups)
