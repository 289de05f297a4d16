"""What a search has measured so far, in a file next to the model, so that a search that was stopped goes on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from calib.record import Accuracy
from calib.sensitivity import Sensitivity
from gfl_edge.errors import InputError
from gfl_edge.files import is_file, write_atomically
from gfl_edge.parsing.json_text import json_text, read_json
from gfl_edge.parsing.validation import build

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Trial(Accuracy):
    float_layers: tuple[str, ...]

    @property
    def accuracy(self) -> Accuracy:
        return Accuracy(self.AP, self.AP50, self.AP75, self.images)


@dataclass(frozen=True)
class _Content:
    """What the file holds."""

    key: dict[str, Any]
    reference: Accuracy | None
    trials: tuple[_Trial, ...]
    layers: tuple[Sensitivity, ...]


def _read(path: Path, key: Mapping[str, object]) -> _Content | None:
    """The content of a journal of the same search; None where there is none, or with a warning none of ours."""
    if not is_file(path):
        return None
    try:
        found = build(_Content, read_json(path, "Remove it"))
    except InputError as error:
        logger.warning("%s is not what a search left, so all is measured anew: %s", path, error)
        return None
    return found if found.key == key else None


class Journal:
    """What a search has measured.

    Args:
        path: of the JSON file; what another search left there is not used.
        key: says what is searched: model, images, method and so on.

    Attributes:
        layers: name -> what that layer costs by itself.
        reference: accuracy of the float model; None where it was not measured.
        trials: layers that stay float -> accuracy with all others in INT8.
    """

    def __init__(self, path: Path, key: Mapping[str, object]) -> None:
        self._path, self._key = path, dict(key)
        self.layers: dict[str, Sensitivity] = {}
        self.reference: Accuracy | None = None
        self.trials: dict[tuple[str, ...], Accuracy] = {}
        found = _read(path, self._key)
        if found is not None:
            self.layers = {row.layer: row for row in found.layers}
            self.reference = found.reference
            self.trials = {row.float_layers: row.accuracy for row in found.trials}

    def add_layer(self, found: Sensitivity) -> None:
        """Note what a layer costs."""
        self.layers[found.layer] = found
        self._write()

    def measure_reference(self, measure: Callable[[], Accuracy]) -> Accuracy:
        """The accuracy of the float model, measured unless it is known."""
        if self.reference is None:
            self.reference = measure()
            self._write()
        return self.reference

    def trial(self, float_layers: Sequence[str], measure: Callable[[], Accuracy]) -> Accuracy:
        """The accuracy with these layers float, measured unless it is known."""
        kept = tuple(float_layers)
        if kept not in self.trials:
            self.trials[kept] = measure()
            self._write()
        return self.trials[kept]

    def _write(self) -> None:
        values = {
            "key": self._key,
            "reference": None if self.reference is None else asdict(self.reference),
            "trials": [{"float_layers": kept, **asdict(found)} for kept, found in self.trials.items()],
            "layers": [asdict(row) for row in self.layers.values()],
        }
        write_atomically(self._path, f"{json_text(values, indent=1)}\n".encode())
