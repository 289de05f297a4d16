"""What the environment says about the processes of a run, as torchrun sets it, and whether that can be."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from gfl_edge.errors import InputError
from gfl_edge.parsing.validation import shown

# Of launchers that number their tasks but do not set WORLD_SIZE: how many tasks they started together
TASKS = {"SLURM_STEP_NUM_TASKS": "srun", "OMPI_COMM_WORLD_SIZE": "mpirun", "PMI_SIZE": "mpiexec"}
ADVICE = "Start each node's processes with torchrun, which sets them (docs/cluster.md)"


@dataclass(frozen=True)
class Launch:
    """This process among those that were started together.

    Attributes:
        rank: its number, from 0.
        world_size: how many there are.
        local_rank: its number on this node.
        address: host and port at which they meet; empty for one that is alone.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    address: str = ""


def read_launch(environment: Mapping[str, str]) -> Launch:
    """The launch that ``RANK``, ``WORLD_SIZE`` and the like describe; without them, the only process.

    Raises:
        InputError: they contradict each other or are incomplete, or several processes know nothing of each other.
    """
    if "WORLD_SIZE" not in environment:
        _refuse_strangers(environment)
        return Launch()
    world_size, rank = _number(environment, "WORLD_SIZE"), _number(environment, "RANK", "0")
    if not rank < world_size:
        raise InputError(f"the environment has RANK {rank} and WORLD_SIZE {world_size}, expected ranks below. {ADVICE}")
    if world_size == 1:
        return Launch()
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        if not environment.get(name):
            raise InputError(f"the environment has WORLD_SIZE {world_size} but no {name}. {ADVICE}")
    local_rank, port = _number(environment, "LOCAL_RANK", "0"), _number(environment, "MASTER_PORT")
    local_size = _number(environment, "LOCAL_WORLD_SIZE", str(world_size))
    if not local_rank < local_size <= world_size or local_rank > rank:
        raise InputError(
            f"the environment has LOCAL_RANK {local_rank} of {local_size} on this node, but RANK {rank} of "
            f"{world_size} in all. {ADVICE}"
        )
    if not 0 < port < 1 << 16:
        raise InputError(f"the environment's MASTER_PORT is {port}, expected 1 to 65535. {ADVICE}")
    return Launch(rank, world_size, local_rank, f"{environment['MASTER_ADDR']}:{port}")


def _refuse_strangers(environment: Mapping[str, str]) -> None:
    """Several processes without ``WORLD_SIZE`` would each train alone, and write into one folder."""
    if "RANK" in environment:
        raise InputError(f"the environment has RANK {shown(environment['RANK'])} but no WORLD_SIZE. {ADVICE}")
    for name, launcher in TASKS.items():
        count = environment.get(name, "1")
        if count != "1":
            raise InputError(
                f"{launcher} started {shown(count)} of this command ({name}), which know nothing of each other. "
                f"{ADVICE}, or set WORLD_SIZE=1 if each is a run of its own"
            )


def _number(environment: Mapping[str, str], name: str, default: str = "") -> int:
    text = environment.get(name, default)
    if not re.fullmatch("[0-9]{1,6}", text, re.ASCII):
        raise InputError(f"the environment's {name} is {shown(text)}, expected a number as torchrun sets it. {ADVICE}")
    return int(text)
