"""What a layer costs in INT8: noise at the outputs of the head, and AP."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from calib.qdq import QdqGraph, without_pairs
from gfl_edge.files import write_atomically
from gfl_edge.ops.onnx_graph import open_session
from gfl_edge.report import plots
from gfl_edge.spec import INPUT_NAME

MAX_DB = 140.0  # what float32 itself rounds
BARS = 30  # layers in the chart

Outputs = list[list[NDArray[np.float32]]]  # by image and tensor


@dataclass(frozen=True)
class Sensitivity:
    """What quantizing only this layer costs.

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
    """Compares quantized forms of a graph with the float one at the outputs of the head, on a few images.

    Args:
        graph: with Q/DQ pairs.
        final_outputs: tensors of the graph, see :func:`calib.placement.final_outputs`.
        images: uint8 ``[1, H, W, 3]`` each.
    """

    def __init__(self, graph: QdqGraph, final_outputs: list[str], images: Sequence[NDArray[np.uint8]]) -> None:
        self._names, self.images = final_outputs, images
        self._reference = self._run(without_pairs(graph.model))

    def _run(self, model: ModelProto) -> Outputs:
        session = open_session(model, self._names)
        return [session.run(self._names, {INPUT_NAME: image}) for image in self.images]

    def snr_db(self, model: ModelProto) -> float:
        """Signal to noise of ``model`` in decibels, see :func:`signal_to_noise`."""
        return signal_to_noise(self._reference, self._run(model))


def signal_to_noise(reference: Outputs, outputs: Outputs) -> float:
    """Decibels between outputs by image and tensor: noise over signal of each tensor in power, averaged."""
    ratios = []
    for expected, found in zip(zip(*reference, strict=True), zip(*outputs, strict=True), strict=True):
        signal = sum(float(np.square(values, dtype=np.float64).sum()) for values in expected)
        noise = sum(float(np.square(b - a, dtype=np.float64).sum()) for a, b in zip(expected, found, strict=True))
        ratios.append(noise / signal if signal else 0.0)
    mean = float(np.mean(ratios))
    return min(MAX_DB, -10 * float(np.log10(mean))) if mean > 0 else MAX_DB


def ranked(rows: Iterable[Sensitivity], max_ap_drop: float = math.inf) -> list[Sensitivity]:
    """The layers, the one that costs most first.

    Those of which one costs more than ``max_ap_drop`` come first; smaller differences on a few images are chance, and
    signal to noise says more.
    """
    return sorted(rows, key=lambda row: ((row.ap_drop or 0.0) <= max_ap_drop, row.snr_db))


def table(ranking: Sequence[Sensitivity], rows: int) -> str:
    """The first layers of a ranking as lines of text."""
    lines = [f"{'layer':<56} {'operator':<8} {'SNR, dB':>8} {'AP lost':>8}"]
    for row in ranking[:rows]:
        drop = "-" if row.ap_drop is None else f"{row.ap_drop:.2f}"
        lines.append(f"{row.layer[-56:]:<56} {row.kind:<8} {row.snr_db:>8.1f} {drop:>8}")
    return "\n".join(lines)


def draw(path: Path, title: str, ranking: Sequence[Sensitivity], kept_float: Sequence[str]) -> None:
    """The worst layers as bars of their signal to noise, as SVG; those that stayed float in another color."""
    rows = sorted(ranking, key=lambda row: row.snr_db)[:BARS]
    chart = plots.ranked_bars(
        title,
        "signal to noise at the head with only this layer in INT8, dB (short bars hurt)",
        [(row.layer[-48:], row.snr_db, "kept float" if row.layer in kept_float else "INT8") for row in rows],
    )
    write_atomically(path, chart)
