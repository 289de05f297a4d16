"""Checkpoints of our own: weights to use, what they are, and all that a run needs to go on as if nothing had happened.

A file is a mapping of tensors and plain values, which ``torch.load(path, weights_only=True)`` reads:

    format       1
    state_dict   the detector's weights, averaged where the run averages them; what train.weights.load_detector takes
    architecture the network's fields under "nanodet" or "gfl", as in a configuration; see train.weights.load_detector
    class_names  in the order of the outputs
    config       the run's settings, see train.config.Config.to_dict
    metrics      of these weights in percent; empty where they were not evaluated
    training     what the loop goes on from; absent in best.pt
"""

from __future__ import annotations

import errno
import pickle
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gfl_edge.errors import CheckpointError
from gfl_edge.files import cannot_write, whole_file

FORMAT = 1
BEST, LAST = "best.pt", "last.pt"


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint file; see the module."""

    state_dict: Mapping[str, Tensor]
    architecture: Mapping[str, Any]
    class_names: tuple[str, ...]
    config: dict[str, Any]
    metrics: dict[str, float | None] = field(default_factory=dict)
    training: dict[str, Any] | None = None

    def save(self, path: str | Path) -> None:
        """Write the file; a reader sees the old one or the whole new one.

        Raises:
            OutputError: the file cannot be written.
        """
        content = {
            "format": FORMAT,
            "state_dict": {key: value.detach().cpu() for key, value in self.state_dict.items()},
            "architecture": dict(self.architecture),
            "class_names": list(self.class_names),
            "config": self.config,
            "metrics": dict(self.metrics),
        }
        if self.training is not None:
            content["training"] = self.training
        try:
            with whole_file(path) as temporary:
                torch.save(content, temporary)
        except RuntimeError as error:  # torch's writer raises it for a full disk
            raise cannot_write(path, OSError(errno.ENOSPC, f"PyTorch: {str(error).splitlines()[0]}")) from error

    @classmethod
    def load(cls, path: str | Path) -> Checkpoint:
        """Read a file; tensors are on the CPU.

        Raises:
            CheckpointError: no such file, unreadable, or none of ours.
        """
        path = Path(path)
        if not path.is_file():
            raise CheckpointError(f"{path}: no such checkpoint")
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
            raise CheckpointError(f"{path} is truncated or no checkpoint of this project. Copy it again") from error
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise CheckpointError(f"{path} is no checkpoint of this project in format {FORMAT}. Train again")
        return cls(
            content["state_dict"],
            content["architecture"],
            tuple(content["class_names"]),
            content["config"],
            content["metrics"],
            content.get("training"),
        )


def describe_weights(path: str | Path) -> Checkpoint | None:
    """What a checkpoint of our own says about itself; None for those of other projects."""
    try:
        return Checkpoint.load(path)
    except CheckpointError:
        return None


def random_state() -> dict[str, Any]:
    """The state of all generators of chance of this process, in plain values and tensors."""
    name, keys, *rest = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [name, np.asarray(keys).tolist(), *rest],
        "python": random.getstate(),
    }


def restore_random_state(state: Mapping[str, Any]) -> None:
    """Undo what has been drawn since :func:`random_state`. GPUs are skipped where there is another number of them."""
    torch.set_rng_state(state["torch"])
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, np.asarray(keys, np.uint32), *rest))
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
