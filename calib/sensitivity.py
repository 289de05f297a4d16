"""Which layers lose most in INT8, and how few of them have to stay float."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from calib.qdq import Layer, QdqGraph, without_pairs
from gfl_edge.files import write_atomically
from gfl_edge.ops.onnx_graph import open_session
from gfl_edge.progress import track
from gfl_edge.report import plots
from gfl_edge.spec import INPUT_NAME

MOST_DB = 140.0  # what float32 itself rounds
BARS = 30  # layers in the picture

Outputs = list[list[NDArray[np.float32]]]  # by picture and tensor
MakeModel = Callable[[str], ModelProto]  # of the name of a layer: the model with this layer alone in INT8


@dataclass(frozen=True)
class Sensitivity:
    """What quantizing a layer alone costs.

    Attributes:
        layer: name, see :class:`calib.qdq.Layer`.
        kind: operator.
        snr_db: signal to noise at the outputs of the head's final convolutions, in decibels; low is bad.
        ap_drop: points of AP on a few images; None where it was not measured.
    """

    layer: str
    kind: str
    snr_db: float
    ap_drop: float | None = None


class Probe:
    """Compares quantized forms of a graph with the float one at the outputs of the head, on a few pictures.

    Args:
        graph: with Q/DQ pairs.
        final_outputs: tensors of the graph, see :func:`calib.placement.final_outputs`.
        pictures: uint8 ``[1, H, W, 3]`` each.
    """

    def __init__(self, graph: QdqGraph, final_outputs: list[str], pictures: Sequence[NDArray[np.uint8]]) -> None:
        self._names, self.pictures = final_outputs, pictures
        self._reference = self._run(without_pairs(graph.model))

    def _run(self, model: ModelProto) -> Outputs:
        session = open_session(model, self._names)
        return [session.run(self._names, {INPUT_NAME: picture}) for picture in self.pictures]

    def snr_db(self, model: ModelProto) -> float:
        """Signal to noise of ``model`` in decibels, see :func:`signal_to_noise`."""
        return signal_to_noise(self._reference, self._run(model))


def signal_to_noise(reference: Outputs, outputs: Outputs) -> float:
    """Decibels between outputs by picture and tensor: noise over signal of each tensor in power, averaged."""
    ratios = []
    for expected, found in zip(zip(*reference, strict=True), zip(*outputs, strict=True), strict=True):
        signal = sum(float(np.square(values, dtype=np.float64).sum()) for values in expected)
        noise = sum(float(np.square(b - a, dtype=np.float64).sum()) for a, b in zip(expected, found, strict=True))
        ratios.append(noise / signal if signal else 0.0)
    mean = float(np.mean(ratios))
    return min(MOST_DB, -10 * float(np.log10(mean))) if mean > 0 else MOST_DB


class Journal:
    """What a search has measured so far, in a file beside the model, so that a search that was stopped goes on.

    Args:
        path: of the JSON file; what another search left there is not used.
        key: says what is searched: model, pictures, method and so on.
    """

    def __init__(self, path: Path, key: Mapping[str, object]) -> None:
        self._path, self._key = path, dict(key)
        self.layers: dict[str, Sensitivity] = {}
        self.trials: dict[str, dict[str, float]] = {}
        self.wrong: list[str] | None = None
        try:
            found = json.loads(path.read_text())
            if found["key"] == self._key:
                self.layers = {row["layer"]: Sensitivity(**row) for row in found["layers"]}
                self.trials, self.wrong = found["trials"], found["wrong"]
        except (OSError, ValueError, KeyError, TypeError):
            pass  # there is none, or none of ours: it is written anew

    def add_layer(self, found: Sensitivity) -> None:
        """Note what a layer costs."""
        self.layers[found.layer] = found
        self._write()

    def trial(self, name: str, measure: Callable[[], dict[str, float]]) -> dict[str, float]:
        """The metrics of a trial, measured unless they are known."""
        if name not in self.trials:
            self.trials[name] = measure()
            self._write()
        return self.trials[name]

    def wrong_layers(self, find: Callable[[], list[str]]) -> list[str]:
        """The layers that the run time computes wrongly, looked for unless they are known."""
        if self.wrong is None:
            self.wrong = find()
            self._write()
        return self.wrong

    def ranking(self, max_ap_drop: float) -> list[Sensitivity]:
        """The layers, the one that costs most first.

        Those that cost more than ``max_ap_drop`` alone come first; smaller differences on a few images are chance, and
        signal to noise says more.
        """
        return sorted(self.layers.values(), key=lambda row: ((row.ap_drop or 0.0) <= max_ap_drop, row.snr_db))

    def _write(self) -> None:
        rows = [asdict(row) for row in self.layers.values()]
        text = json.dumps({"key": self._key, "wrong": self.wrong, "trials": self.trials, "layers": rows}, indent=1)
        write_atomically(self._path, f"{text}\n".encode())


def measure_snr(
    layers: Sequence[Layer], alone: MakeModel, probe: Probe, journal: Journal, progress: bool = True
) -> None:
    """Find the signal to noise of each layer alone, unless ``journal`` knows it."""
    missing = [layer for layer in layers if layer.name not in journal.layers]
    for layer in track(missing, "sensitivity", len(missing), progress):
        snr_db = round(probe.snr_db(alone(layer.name)), 2)
        journal.add_layer(Sensitivity(layer.name, layer.kind, snr_db))


def measure_ap(
    alone: MakeModel,
    journal: Journal,
    count: int,
    average_precision: Callable[[ModelProto], float],
    reference: float,
    progress: bool = True,
) -> None:
    """Find what one layer alone costs of the AP ``reference``, for the ``count`` with the least signal to noise."""
    worst = sorted(journal.layers.values(), key=lambda row: row.snr_db)[:count]
    for row in track(worst, "AP of single layers", len(worst), progress):
        if row.ap_drop is None:
            ap = average_precision(alone(row.layer))
            journal.add_layer(replace(row, ap_drop=round(reference - ap, 3)))


def fewest(most: int, passes: Callable[[int], bool]) -> int | None:
    """The least count from 1 to ``most`` that passes, if more never do worse; None where not even ``most`` does.

    Tries 1, 2, 4, ... and then halves the gap.
    """
    failed, count = 0, 1
    while not passes(count):
        if count == most:
            return None
        failed, count = count, min(2 * count, most)
    return first(failed, count, passes)


def first(low: int, high: int, test: Callable[[int], bool]) -> int:
    """The least number up to ``high``, which passes, above ``low``, which does not; found by halving the gap."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if test(middle) else (middle, high)
    return high


def table(ranking: Sequence[Sensitivity], rows: int) -> str:
    """The first layers of a ranking as lines of text."""
    lines = [f"{'layer':<56} {'operator':<8} {'SNR, dB':>8} {'AP lost':>8}"]
    for row in ranking[:rows]:
        drop = "-" if row.ap_drop is None else f"{row.ap_drop:.2f}"
        lines.append(f"{row.layer[-56:]:<56} {row.kind:<8} {row.snr_db:>8.1f} {drop:>8}")
    return "\n".join(lines)


def draw(path: Path, title: str, ranking: Sequence[Sensitivity], kept_float: Sequence[str]) -> None:
    """The worst layers as bars of their signal to noise, as SVG; those that stayed float in another colour."""
    rows = sorted(ranking, key=lambda row: row.snr_db)[:BARS]
    picture = plots.ranked_bars(
        title,
        "signal to noise at the head with this layer alone in INT8, dB (short bars hurt)",
        [(row.layer[-48:], row.snr_db, "kept float" if row.layer in kept_float else "INT8") for row in rows],
    )
    write_atomically(path, picture)
