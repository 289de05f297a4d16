"""What a layer costs in INT8: noise in scores and boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from calib.noise import Decoded, signal_to_noise
from gfl_edge.files import write_atomically
from gfl_edge.ops.onnx_graph import open_session
from gfl_edge.report import plots
from gfl_edge.spec import INPUT_NAME, ModelSpec

BARS = 30  # layers in the chart


@dataclass(frozen=True)
class Sensitivity:
    """What quantizing only this layer costs.

    Attributes:
        layer: name, see :class:`calib.qdq.Layer`.
        kind: operator.
        snr_db: signal to noise in scores and boxes, in decibels; low is bad.
    """

    layer: str
    kind: str
    snr_db: float


class Probe:
    """Compares quantized forms of a graph with the float one on a few images.

    Args:
        graph: float32, without NMS.
        spec: its description.
        images: uint8 ``[1, H, W, 3]`` each.
    """

    def __init__(self, graph: ModelProto, spec: ModelSpec, images: Sequence[NDArray[np.uint8]]) -> None:
        self._spec, self._images = spec, images
        self._reference = self._run(graph)

    def _run(self, model: ModelProto) -> list[Decoded]:
        session, names = open_session(model, simulated=True), [output.name for output in model.graph.output]
        found = [dict(zip(names, session.run(names, {INPUT_NAME: image}), strict=True)) for image in self._images]
        sizes = [(image.shape[1], image.shape[2]) for image in self._images]
        return [Decoded.of(outputs, self._spec, size) for outputs, size in zip(found, sizes, strict=True)]

    def snr_db(self, model: ModelProto) -> float:
        """Signal to noise of ``model`` in decibels, see :func:`calib.noise.signal_to_noise`."""
        return signal_to_noise(self._reference, self._run(model))


def table(ranking: Sequence[Sensitivity], rows: int) -> str:
    """The first layers of a ranking as lines of text."""
    lines = [f"{'layer':<56} {'operator':<8} {'SNR, dB':>8}"]
    lines += [f"{row.layer[-56:]:<56} {row.kind:<8} {row.snr_db:>8.1f}" for row in ranking[:rows]]
    return "\n".join(lines)


def draw(path: Path, title: str, ranking: Sequence[Sensitivity], kept_float: Sequence[str]) -> None:
    """The worst layers as bars of their signal to noise, as SVG; those that stayed float in another color."""
    rows = sorted(ranking, key=lambda row: row.snr_db)[:BARS]
    chart = plots.ranked_bars(
        title,
        "signal to noise in scores and boxes with only this layer in INT8, dB (short bars hurt)",
        [(row.layer[-48:], row.snr_db, "kept float" if row.layer in kept_float else "INT8") for row in rows],
    )
    write_atomically(path, chart)
