"""The generators of random numbers of this process: their state, to go on from it as if nothing had happened."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from gfl_edge.errors import CheckpointError

NUMPY_WORDS = 624  # of its generator, a Mersenne Twister


def random_state() -> dict[str, Any]:
    """The state of all generators of chance of this process, in plain values and tensors."""
    name, keys, *rest = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [name, np.asarray(keys).tolist(), *rest],
        "python": random.getstate(),
    }


def check_random_state(state: Any) -> None:
    """Raise CheckpointError unless :func:`restore_random_state` can take it; nothing is changed."""
    try:
        torch.Generator().set_state(state["torch"])
        _check_numpy(state["numpy"])
        np.random.RandomState().set_state(_of_numpy(state["numpy"]))
        random.Random().setstate(_of_python(state["python"]))
        right = all(isinstance(one, torch.Tensor) and one.dtype == torch.uint8 for one in state["cuda"])
    except (LookupError, TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        raise CheckpointError(f"its state of the random numbers is damaged ({type(error).__name__})") from error
    if not right:
        raise CheckpointError("its state of the random numbers of GPUs is damaged")


def restore_random_state(state: Mapping[str, Any]) -> None:
    """Undo what has been drawn since :func:`random_state`. GPUs are skipped where there is another number of them."""
    torch.set_rng_state(state["torch"])
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    np.random.set_state(_of_numpy(state["numpy"]))
    random.setstate(_of_python(state["python"]))


def _check_numpy(state: Any) -> None:
    """NumPy takes any position, and then reads beyond its words."""
    _, keys, position, *_ = state
    if len(keys) != NUMPY_WORDS or not 0 <= position <= NUMPY_WORDS:
        raise ValueError(f"position {position} of {len(keys)} words")


def _of_numpy(state: Any) -> Any:
    name, keys, *rest = state
    return name, np.asarray(keys, np.uint32), *rest


def _of_python(state: Any) -> Any:
    version, internal, gauss = state
    return version, tuple(internal), gauss
