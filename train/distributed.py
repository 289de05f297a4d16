"""Training on several GPUs or nodes: processes that torchrun started. A single process needs none of this."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from gfl_edge.errors import GflEdgeError, InputError
from train.launch import Launch, read_launch

T = TypeVar("T")

OF_GLOO = re.compile(r"\bgloo\b|Connection (closed|reset|refused)|[Tt]imed out waiting")
PLACE_IN_PYTORCH = re.compile(r"^\[/[^]]*\] ")
MAX_REASON = 200  # characters of PyTorch's own words
FIND = (
    "Expected all of them to be started within the timeout, and the address to lead to the first; on machines with "
    "several networks, GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME name the one to take"
)
GO_ON = "Under torchrun --max-restarts the run goes on from its last checkpoint if the command has --auto-resume"


class ProcessesError(GflEdgeError):
    """The processes of a run do not find each other, or one of them is gone."""


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
def joined(device: str = "auto", timeout_s: float | None = None) -> Iterator[Process]:
    """Join the processes that torchrun has started; without torchrun, be the only one.

    Over gloo where they compute on CPUs, over NCCL on GPUs.

    Args:
        device: "auto", or as torch names it. With several processes, "cuda" is the GPU of torchrun's local rank.
        timeout_s: how long this process waits for the others, at the start and later; None: as PyTorch does.

    Raises:
        InputError: a device that PyTorch cannot use here; an environment that contradicts itself.
        ProcessesError: the others were not found, or are gone; also what PyTorch raises for it in the block.
    """
    launch = read_launch(os.environ)
    if launch.world_size > 1 and ":" in device:
        raise InputError(
            f"device {device!r} is one for {launch.world_size} processes. Take 'cuda', or start one process"
        )
    opened = _open_device(device, launch.local_rank)
    if launch.world_size == 1:
        yield Process(opened)
        return
    _meet(launch, opened, timeout_s)
    try:
        with _explained("another process of this run is gone or does not answer", GO_ON):
            yield Process(opened, launch.rank, launch.world_size)
    finally:
        dist.destroy_process_group()


def _meet(launch: Launch, device: torch.device, timeout_s: float | None) -> None:
    backend, own = ("nccl", [device.index]) if device.type == "cuda" else ("gloo", None)
    timeout = None if timeout_s is None else timedelta(seconds=timeout_s)
    missing = f"the {launch.world_size} processes of this run did not find each other at {launch.address}"
    with _explained(missing, FIND):
        dist.init_process_group(backend, timeout=timeout, rank=launch.rank, world_size=launch.world_size)
        dist.barrier(device_ids=own)  # connections are opened at the first use


@contextmanager
def _explained(what: str, advice: str) -> Iterator[None]:
    """Make one sentence of what PyTorch raises where processes lose each other."""
    try:
        yield
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        if not isinstance(error, dist.DistError) and not OF_GLOO.search(reason):
            raise
        reason = PLACE_IN_PYTORCH.sub("", reason).partition(". ")[0][:MAX_REASON]
        raise ProcessesError(f"{what} ({reason}). {advice}") from error


def _open_device(name: str, local_rank: int) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    name = f"cuda:{local_rank}" if name == "cuda" and local_rank else name
    try:
        device = torch.device("cuda:0" if name == "cuda" else name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch built without CUDA asserts
        reason = str(error).strip().partition("\n")[0]
        raise InputError(
            f"device {name!r} cannot be used ({reason}). Take 'cpu', or 'cuda' with an NVIDIA GPU for each process"
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


@contextmanager
def said_once(process: Process) -> Iterator[None]:
    """Meanwhile only the main process logs what all find out, such as warnings about the data."""
    before = logging.root.manager.disable
    if not process.is_main:
        logging.disable(max(before, logging.WARNING))
    try:
        yield
    finally:
        logging.disable(before)
