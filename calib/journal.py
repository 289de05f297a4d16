"""What a search has measured so far, in a file next to the model, so that a search that was stopped goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from calib.record import Accuracy
from calib.sensitivity import Sensitivity
from gfl_edge.files import write_atomically
from gfl_edge.parsing.json_text import json_text

Extent = Literal["all images", "few images"]


class Journal:
    """What a search has measured.

    Args:
        path: of the JSON file; what another search left there is not used.
        key: says what is searched: model, images, method and so on.

    Attributes:
        layers: name -> what that layer costs by itself.
        references: images -> accuracy of the float model on them.
        trials: layers that stay float -> accuracy with all others in INT8.
        wrong: layers that the run time computes wrongly; None where that was not looked for.
    """

    def __init__(self, path: Path, key: Mapping[str, object]) -> None:
        self._path, self._key = path, dict(key)
        self.layers: dict[str, Sensitivity] = {}
        self.references: dict[Extent, Accuracy] = {}
        self.trials: dict[tuple[str, ...], Accuracy] = {}
        self.wrong: list[str] | None = None
        try:
            found = json.loads(path.read_text())
            if found["key"] == self._key:
                layers = {row["layer"]: Sensitivity(**row) for row in found["layers"]}
                references = {extent: Accuracy(**row) for extent, row in found["references"].items()}
                trials = {tuple(row.pop("float_layers")): Accuracy(**row) for row in found["trials"]}
                self.layers, self.references, self.trials, self.wrong = layers, references, trials, found["wrong"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pass  # there is none, or none of ours: it is written anew

    def add_layer(self, found: Sensitivity) -> None:
        """Note what a layer costs."""
        self.layers[found.layer] = found
        self._write()

    def reference(self, extent: Extent, measure: Callable[[], Accuracy]) -> Accuracy:
        """The accuracy of the float model, measured unless it is known."""
        if extent not in self.references:
            self.references[extent] = measure()
            self._write()
        return self.references[extent]

    def trial(self, float_layers: Sequence[str], measure: Callable[[], Accuracy]) -> Accuracy:
        """The accuracy with these layers float, measured unless it is known."""
        kept = tuple(float_layers)
        if kept not in self.trials:
            self.trials[kept] = measure()
            self._write()
        return self.trials[kept]

    def wrong_layers(self, find: Callable[[], list[str]]) -> list[str]:
        """The layers that the run time computes wrongly, looked for unless they are known."""
        if self.wrong is None:
            self.wrong = find()
            self._write()
        return self.wrong

    def _write(self) -> None:
        values = {
            "key": self._key,
            "wrong": self.wrong,
            "references": {extent: asdict(found) for extent, found in self.references.items()},
            "trials": [{"float_layers": kept, **asdict(found)} for kept, found in self.trials.items()],
            "layers": [asdict(row) for row in self.layers.values()],
        }
        write_atomically(self._path, f"{json_text(values, indent=1)}\n".encode())
