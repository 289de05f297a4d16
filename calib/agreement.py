"""Layers that a run time computes wrongly in INT8, found by comparing it with ONNX Runtime.

OpenVINO 2026.4 does so where quantized convolutions read a concatenation (in NanoDet-Plus' Ghost blocks), each of them
right by itself. Which ones depends on its version, so that it is measured and not assumed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from calib.bisection import first
from calib.sensitivity import signal_to_noise
from gfl_edge.backends.onnx_cpu import OnnxRuntimeBackend, OpenVinoBackend
from gfl_edge.progress import progress_bar
from gfl_edge.spec import ModelSpec

MAX_LOST_DB = 3.0  # of the signal to noise; where layers are right it is less than 1


class Agreement:
    """Compares OpenVINO with ONNX Runtime at a model's outputs.

    Args:
        reference: float32, without NMS.
        spec: its description.
        images: uint8 ``[1, H, W, 3]`` each.
    """

    def __init__(self, reference: ModelProto, spec: ModelSpec, images: Sequence[NDArray[np.uint8]]) -> None:
        self._spec = spec if spec.nms == "raw" else replace(spec, nms="none")
        self._images = images
        self._reference = self._run(OnnxRuntimeBackend, reference)

    def _run(
        self, backend: type[OnnxRuntimeBackend] | type[OpenVinoBackend], model: ModelProto
    ) -> list[list[NDArray[np.float32]]]:
        runner = backend(model, self._spec)
        return [[np.array(values) for values in runner.run(image).values()] for image in self._images]

    def lost_db(self, model: ModelProto) -> float:
        """By how many decibels OpenVINO's signal to noise is worse than ONNX Runtime's."""
        expected, found = (
            signal_to_noise(self._reference, self._run(backend, model))
            for backend in (OnnxRuntimeBackend, OpenVinoBackend)
        )
        return expected - found


def wrong_layers(layers: Sequence[str], lost_db: Callable[[list[str]], float], progress: bool = True) -> list[str]:
    """Layers that have to stay float for the others to be computed rightly.

    With more and more layers in INT8, in the order of the graph, the first with which the result goes wrong is one of
    them; it stays float, and the rest is looked at in the same way.

    Args:
        layers: of the model, in the order of the graph.
        lost_db: what is lost with these layers float, see :meth:`Agreement.lost_db`.
        progress: draw a progress line on stderr.
    """
    wrong: list[str] = []
    with progress_bar("comparing OpenVINO with ONNX Runtime", 1, enabled=progress) as bar:

        def fails(count: int) -> bool:
            bar.total = (bar.total or 0) + 1
            bar.update()
            kept = set(layers[count:]) | set(wrong)
            return lost_db([layer for layer in layers if layer in kept]) > MAX_LOST_DB

        right = 0
        while fails(len(layers)):
            right = first(right, len(layers), fails) - 1  # layers that do no harm before the one that does
            wrong.append(layers[right])
        bar.update()
    return wrong
