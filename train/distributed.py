"""Training on several GPUs: one process each, started by torchrun. A single process needs none of this."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from gfl_edge.errors import InputError
from gfl_edge.parsing.validation import shown

T = TypeVar("T")


@dataclass(frozen=True)
class Process:
    """This process among those of the run.

    Attributes:
        device: what it computes on.
        rank: its number, from 0.
        world_size: how many there are.
    """

    device: torch.device
    rank: int = 0
    world_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether it is the one that writes files and messages."""
        return self.rank == 0

    @property
    def is_only(self) -> bool:
        """Whether there are no others."""
        return self.world_size == 1


@contextmanager
def joined(device: str = "auto") -> Iterator[Process]:
    """Join the processes that torchrun has started; without torchrun, be the only one.

    Args:
        device: "auto", or as torch names it. With several processes, "cuda" is the GPU of torchrun's local rank.

    Raises:
        InputError: a device that PyTorch cannot use here.
    """
    world_size = _environment_number("WORLD_SIZE", 1)
    if world_size == 1:
        yield Process(_open_device(device, 0))
        return
    opened = _open_device(device, _environment_number("LOCAL_RANK", 0))
    dist.init_process_group("nccl" if opened.type == "cuda" else "gloo")
    try:
        yield Process(opened, dist.get_rank(), world_size)
    finally:
        dist.destroy_process_group()


def _environment_number(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not re.fullmatch("[0-9]{1,6}", text, re.ASCII):
        raise InputError(f"the environment's {name} is {shown(text)}, expected a number as torchrun sets it. Unset it")
    return int(text)


def _open_device(name: str, local_rank: int) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(f"cuda:{local_rank}" if name == "cuda" else name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch built without CUDA asserts
        reason = str(error).strip().partition("\n")[0]
        raise InputError(
            f"device {name!r} cannot be used ({reason}). Take 'cpu', or 'cuda' with an NVIDIA GPU"
        ) from error
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def parallel(network: nn.Module, process: Process) -> nn.Module:
    """``network`` with gradients averaged over the processes; itself where there is one process."""
    if process.is_only:
        return network
    return DistributedDataParallel(network, device_ids=[process.device] if process.device.type == "cuda" else None)


def mean_over(values: Tensor, process: Process) -> Tensor:
    """The mean of a tensor over the processes."""
    if process.is_only:
        return values
    values = values / process.world_size
    dist.all_reduce(values)
    return values


def gather(value: T, process: Process) -> list[T]:
    """What each process has, by rank; plain values, or tensors on the CPU."""
    if process.is_only:
        return [value]
    gathered: list[T | None] = [None] * process.world_size
    dist.all_gather_object(gathered, value)
    return gathered  # type: ignore[return-value]  # all filled


def from_main(value: T, process: Process) -> T:
    """What the main process has, on all of them."""
    if process.is_only:
        return value
    carried = [value]
    dist.broadcast_object_list(carried, src=0)
    return carried[0]


def share_buffers(network: nn.Module, process: Process) -> None:
    """Give all processes the main one's buffers: batch norms of each saw other images."""
    if not process.is_only:
        for buffer in network.buffers():
            dist.broadcast(buffer, src=0)
