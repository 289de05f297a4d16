"""Checkpoints of our own: weights to use, what they are, and all that a run needs to go on as if nothing had happened.

A file is a mapping of tensors and plain values, which ``torch.load(path, weights_only=True)`` reads, too:

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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gfl_edge.errors import CheckpointError
from gfl_edge.files import cannot_write, whole_file
from train.weights.reading import read_content

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
        content = read_content(path)
        form = content.get("format") if isinstance(content, dict) else None
        if not isinstance(form, int) or form != FORMAT:
            raise CheckpointError(f"{path} is no checkpoint of this project in format {FORMAT}. Train again")
        for name, (is_right, expected) in _ENTRIES.items():
            if not is_right(content.get(name)):
                raise CheckpointError(f"{path} is damaged: its entry {name} is no {expected}. Copy it again")
        return cls(
            content["state_dict"],
            content["architecture"],
            tuple(content["class_names"]),
            content["config"],
            content["metrics"],
            content.get("training"),
        )


def _is_mapping_of(*kinds: type) -> Callable[[Any], bool]:
    """Whether a value is a mapping from texts to these types."""
    return lambda value: (
        isinstance(value, dict) and all(isinstance(key, str) and isinstance(x, kinds) for key, x in value.items())
    )


def _is_plain(value: Any) -> bool:
    """Whether a value and all in it can be compared and written as text; tensors cannot."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(inner) for key, inner in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (str, int, float))


# What a file has to hold: a test, and what it tests in words
_ENTRIES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "state_dict": (_is_mapping_of(Tensor), "table of tensors"),
    "architecture": (lambda x: _is_mapping_of(dict)(x) and _is_plain(x), "table of a network's fields"),
    "class_names": (lambda x: isinstance(x, list) and all(isinstance(name, str) for name in x), "list of texts"),
    "config": (lambda x: _is_mapping_of(dict)(x) and _is_plain(x), "table of settings"),
    "metrics": (_is_mapping_of(float, int, type(None)), "table of numbers"),
    "training": (lambda x: x is None or isinstance(x, dict), "state of a run"),
}
