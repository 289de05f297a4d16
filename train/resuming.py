"""Whether the saved state of a run is whole and of this run, found out before any of it is taken over."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from gfl_edge.errors import CheckpointError
from train.chance import check_random_state
from train.weights.naming import listed, short

MAX_STEPS = 1 << 40
POSITION = ("epoch", "batch", "step")
# What an optimizer keeps of each parameter
STATES: dict[type[Optimizer], set[str]] = {
    torch.optim.SGD: {"momentum_buffer"},
    torch.optim.AdamW: {"step", "exp_avg", "exp_avg_sq"},
}


def check_position(found: Any) -> None:
    """Raise CheckpointError unless it says in which epoch, batch and step a run was."""
    if not isinstance(found, Mapping) or set(found) != set(POSITION):
        raise CheckpointError("it does not say in which epoch and step the run was")
    for name, value in found.items():
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < MAX_STEPS:
            raise CheckpointError(f"it says that the run was in {name} {short(value)}")


def check_tensors(found: Any, expected: Mapping[str, Any], what: str) -> None:
    """Raise CheckpointError unless a state dict has the keys, shapes and types of another, and finite values.

    Args:
        found: what a file has for a state dict.
        expected: that of the network which is to take it.
        what: how messages call it.
    """
    if not isinstance(found, Mapping):
        raise CheckpointError(f"it has no {what}")
    differing = sorted({*map(str, expected)} ^ {*map(str, found)})
    if differing:
        raise CheckpointError(f"the run was started with another network or optimizer: {what} {listed(differing)}")
    for key, value in expected.items():
        if isinstance(value, Tensor):
            _check_tensor(found[key], value, f"{what} {short(key)}")


def _check_tensor(found: Any, expected: Tensor, place: str) -> None:
    if not isinstance(found, Tensor) or found.dtype != expected.dtype:
        raise CheckpointError(f"{place} is no tensor of {expected.dtype}")
    if found.shape != expected.shape:
        raise CheckpointError(
            f"the run was started with another network or optimizer: {place} is {list(found.shape)}, "
            f"not {list(expected.shape)}"
        )
    if found.is_floating_point() and not bool(torch.isfinite(found).all()):
        raise CheckpointError(f"{place} holds NaN or infinity")


def check_optimizer(found: Any, optimizer: Optimizer) -> None:
    """Raise CheckpointError unless a state is one of ``optimizer``: its groups, tensors of its parameters' shapes."""
    expected = optimizer.state_dict()
    if not isinstance(found, Mapping) or set(found) != set(expected) or not isinstance(found["state"], Mapping):
        raise CheckpointError("it has no state of the optimizer")
    groups, states = found["param_groups"], found["state"]
    if not isinstance(groups, list) or len(groups) != len(expected["param_groups"]):
        raise CheckpointError("the run was started with another network or optimizer: it has other groups")
    for group, own in zip(groups, expected["param_groups"], strict=True):
        _check_group(group, own)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, state in states.items():
        if not isinstance(index, int) or not 0 <= index < len(parameters):
            raise CheckpointError("the run was started with another network or optimizer: it has other parameters")
        _check_state(state, parameters[index], STATES[type(optimizer)], f"the optimizer's state of parameter {index}")


def _check_group(found: Any, expected: Mapping[str, Any]) -> None:
    alike = isinstance(found, Mapping) and found.keys() == expected.keys() and isinstance(found["params"], list)
    if not alike or list(map(str, found["params"])) != list(map(str, expected["params"])):
        raise CheckpointError("the run was started with another network or optimizer: it has other groups")
    for name, own in expected.items():
        if name != "params" and not _is_alike(found[name], own):
            raise CheckpointError(f"the optimizer's {name} is {short(found[name])}")


def _is_alike(found: Any, own: Any) -> bool:
    """Whether a value can stand where another does: of its type, or a finite number."""
    if isinstance(own, (tuple, list)):
        return isinstance(found, (tuple, list)) and len(found) == len(own) and all(map(_is_alike, found, own))
    if isinstance(own, (int, float)) and not isinstance(own, bool):
        return isinstance(found, (int, float)) and not isinstance(found, bool) and math.isfinite(found)
    return type(found) is type(own)


def _check_state(found: Any, parameter: Tensor, names: set[str], place: str) -> None:
    if not isinstance(found, Mapping) or set(found) != names:
        raise CheckpointError(f"{place} has not the entries {listed(sorted(names))}")
    for name, value in found.items():
        if name == "step":
            _check_tensor(value, torch.zeros(()), f"{place}, {name},")
        elif value is not None:
            _check_tensor(value, parameter, f"{place}, {name},")


def check_scaler(found: Any, expected: Mapping[str, Any]) -> None:
    """Raise CheckpointError unless a gradient scaler can take a state; one that is off takes any."""
    if expected and not (isinstance(found, Mapping) and found.keys() == expected.keys()):
        raise CheckpointError("it has no state of the gradient scaler; go on with the same train.amp")
    for name, own in expected.items():
        if not _is_alike(found[name], own) or found[name] < 0:
            raise CheckpointError(f"the gradient scaler's {name} is {short(found[name])}")


def check_randomness(found: Any) -> None:
    """Raise CheckpointError unless it is a list with the state of the random numbers of each process."""
    if not isinstance(found, list):
        raise CheckpointError("it has no state of the random numbers")
    for state in found:
        check_random_state(state)
