"""The training loop. It knows networks, losses and data by what they do, and nothing of any method."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from gfl_edge.errors import CheckpointError, GflEdgeError
from train.chance import random_state, restore_random_state
from train.data.loader import Batch
from train.distributed import Process, gather, mean_over, parallel
from train.optim import Schedule
from train.resuming import check_optimizer, check_position, check_randomness, check_scaler, check_tensors

AMP_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}

# outputs of the network, targets, (height, width) of the input -> weighted losses, whose sum is minimized
Criterion = Callable[[Any, Any, tuple[int, int]], Mapping[str, Tensor]]


class TrainingError(GflEdgeError):
    """Training cannot go on."""


class TrainingData(Protocol):
    """Where batches come from."""

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch."""
        ...

    def batches(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from one on, both counted from 0; the same each time."""
        ...


@dataclass
class Position:
    """How far a run is: batches ``0..batch - 1`` of ``epoch`` are done, in ``step`` steps of the optimizer."""

    epoch: int = 0
    batch: int = 0
    step: int = 0


@dataclass(frozen=True)
class LoopSettings:
    """How the loop steps."""

    accumulate: int = 1  # batches per step of the optimizer
    clip_norm: float | None = None  # longest gradient, L2 over all parameters
    amp: str = "none"  # "bf16" or "fp16": arithmetic of the network


@dataclass(frozen=True)
class Step:
    """What one step of the optimizer did.

    Attributes:
        number: of the step, counted from 1 over the whole run.
        epoch: counted from 0.
        lr: highest learning rate.
        losses: weighted, averaged over batches and processes.
        grad_norm: L2, before clipping.
        images: of all processes.
        seconds: since the step before.
    """

    number: int
    epoch: int
    lr: float
    losses: dict[str, float]
    grad_norm: float
    images: int
    seconds: float

    @property
    def total(self) -> float:
        """The loss that is minimized."""
        return math.fsum(self.losses.values())

    def to_dict(self) -> dict[str, float]:
        """A row of the log."""
        return {
            "epoch": self.epoch + 1,
            "lr": self.lr,
            "loss": self.total,
            **self.losses,
            "grad_norm": self.grad_norm,
            "images_per_s": round(self.images / self.seconds, 2) if self.seconds > 0 else 0.0,
        }


class Trainer:
    """Steps through the data.

    With ``accumulate`` batches per step, gradients are those of the mean of their losses. That is one larger batch
    where the loss is a mean over images; a criterion that divides by the number of objects does so in each batch.

    Args:
        network: uint8 images -> what ``criterion`` takes; on the process' device, without wrappers.
        criterion: losses of a batch.
        optimizer: of the parameters of ``network``.
        schedule: learning rate of each step.
        settings: how to step.
        process: with others, gradients are averaged over them.
        average: kept up to date with the weights of ``averaged``.
        averaged: the part of ``network`` that ``average`` is of; default all of it.

    Attributes:
        position: where the run is.
    """

    def __init__(
        self,
        network: nn.Module,
        criterion: Criterion,
        optimizer: Optimizer,
        schedule: Schedule,
        settings: LoopSettings,
        process: Process,
        average: AveragedModel | None = None,
        averaged: nn.Module | None = None,
    ) -> None:
        self.network, self.criterion, self.optimizer, self.schedule = network, criterion, optimizer, schedule
        self.settings, self.process, self.average = settings, process, average
        self._averaged = network if averaged is None else averaged
        self._parallel = parallel(network, process)
        self._parameters = [p for group in optimizer.param_groups for p in group["params"]]
        # FP16 gradients underflow without a scale; with bfloat16 and float32 it is off
        self._scaler = torch.amp.GradScaler(process.device.type, enabled=settings.amp == "fp16")
        self.position = Position()

    def run_epoch(self, data: TrainingData) -> Iterator[Step]:
        """Finish the epoch that ``position`` is in, yielding after each step of the optimizer.

        Between two steps the run may be saved (:meth:`state_dict`) and left.

        Raises:
            TrainingError: a loss or gradient is not finite; the weights are still those from before the step.
        """
        self._parallel.train()
        batches = data.batches(self.position.epoch, self.position.batch)
        while self.position.batch < data.steps_per_epoch:
            count = min(self.settings.accumulate, data.steps_per_epoch - self.position.batch)
            step = self._step(batches, count)
            self.position.batch += count
            self.position.step += 1
            if self.position.batch == data.steps_per_epoch:
                self.position.epoch, self.position.batch = self.position.epoch + 1, 0
                yield step
                return
            yield step

    def _step(self, batches: Iterator[Batch], count: int) -> Step:
        start = time.perf_counter()
        lr = self.schedule.apply(self.optimizer, self.position.step)

        # Gradients add up to those of the mean of the batches' losses
        means: dict[str, Tensor] = {}
        images = 0
        for index in range(count):
            batch = next(batches).to(self.process.device)
            images += len(batch)
            exchange: AbstractContextManager[None] = contextlib.nullcontext()
            if isinstance(self._parallel, DistributedDataParallel) and index < count - 1:
                exchange = self._parallel.no_sync()  # gradients are exchanged only in the last batch of a step
            with exchange:
                losses = self.losses(batch)
                total: Tensor = torch.stack(list(losses.values())).sum() / count
                self._scaler.scale(total).backward()  # type: ignore[no-untyped-call]
            for name, value in losses.items():
                part = value.detach() / count
                means[name] = means[name] + part if name in means else part

        self._scaler.unscale_(self.optimizer)
        limit = self.settings.clip_norm if self.settings.clip_norm is not None else math.inf
        grad_norm = torch.nn.utils.clip_grad_norm_(self._parameters, limit)
        values, norm, images = self._checked(means, grad_norm, images)
        self._scaler.step(self.optimizer)
        self._scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update_parameters(self._averaged)
        seconds = time.perf_counter() - start
        return Step(self.position.step + 1, self.position.epoch, lr, values, norm, images, seconds)

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """Weighted losses of a batch that is on the device."""
        amp_type = AMP_TYPES.get(self.settings.amp)
        with torch.autocast(self.process.device.type, amp_type, enabled=amp_type is not None):
            outputs = self._parallel(batch.images)
        height, width = batch.images.shape[1:3]
        return self.criterion(outputs, batch.targets, (height, width))

    def _checked(
        self, losses: dict[str, Tensor], grad_norm: Tensor, images: int
    ) -> tuple[dict[str, float], float, int]:
        """Losses as numbers, averaged over the processes, the gradient's norm, and the images of all processes; one
        transfer from the device.
        """
        own = torch.stack([*losses.values(), torch.tensor(float(images), device=grad_norm.device)])
        means = mean_over(own.float(), self.process)
        *numbers, mean_images, norm = torch.cat((means, grad_norm.reshape(1).float())).tolist()
        values = dict(zip(losses, numbers, strict=True))
        where = f"step {self.position.step + 1} (epoch {self.position.epoch + 1}, batch {self.position.batch + 1})"
        advice = "Lower optimizer.lr, lengthen schedule.warmup_steps, set train.clip_norm, or train without amp"
        broken = [f"{name} {value}" for name, value in values.items() if not math.isfinite(value)]
        if broken:
            raise TrainingError(f"the loss is not finite in {where}: {', '.join(broken)}. {advice}")
        # A scaler skips such steps and lowers its scale: FP16 gradients overflow now and then
        if not math.isfinite(norm) and not self._scaler.is_enabled():
            raise TrainingError(f"the gradient is not finite in {where}, its norm is {norm}. {advice}")
        return values, norm, round(mean_images * self.process.world_size)

    def state_dict(self) -> dict[str, Any]:
        """All that :meth:`load_state_dict` needs to go on exactly; to be called by all processes together."""
        return {
            "position": vars(self.position).copy(),
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "random": gather(random_state(), self.process),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state_dict`. Chance goes on, too, if there are as many processes as before.

        Raises:
            CheckpointError: it is damaged, or of another network, optimizer or setting of the average. Nothing is
                changed then.
        """
        self._check(state)
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.position = Position(**state["position"])
        if len(state["random"]) == self.process.world_size:
            restore_random_state(state["random"][self.process.rank])

    def _check(self, state: Mapping[str, Any]) -> None:
        """All of it, before any of it is taken over."""
        for name in ("position", "network", "optimizer", "scaler", "average", "random"):
            if name not in state:
                raise CheckpointError(f"it has no entry training.{name}")
        if (state["average"] is None) != (self.average is None):
            raise CheckpointError("the run was started with another train.ema_decay; go on with the same settings")
        check_position(state["position"])
        check_tensors(state["network"], self.network.state_dict(), "the network's")
        check_optimizer(state["optimizer"], self.optimizer)
        check_scaler(state["scaler"], self._scaler.state_dict())
        if self.average is not None:
            check_tensors(state["average"], self.average.state_dict(), "the average's")
        check_randomness(state["random"])
