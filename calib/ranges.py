"""The ranges of a model's activations, observed on pictures, and the file that keeps them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, ValueInfoProto

from calib.histogram import METHODS, Histogram, Method
from gfl_edge import optional
from gfl_edge.errors import CalibrationError
from gfl_edge.files import write_atomically
from gfl_edge.progress import track
from gfl_edge.spec import INPUT_NAME

FORMAT = 1
MOST_VALUES = 1 << 19  # of one tensor in one picture that are counted; of larger ones an even sample is


@dataclass(frozen=True)
class Ranges:
    """What calibration found, and from what.

    Attributes:
        by_method: method -> tensor -> magnitude at which it is clipped.
        model_sha256: of the ONNX file.
        images_sha256: over names and contents of the pictures, in order.
        images: their names.
    """

    by_method: Mapping[Method, Mapping[str, float]]
    model_sha256: str
    images_sha256: str
    images: tuple[str, ...]

    def write(self, path: Path) -> None:
        """Write the cache as JSON."""
        values = {"format": FORMAT, **vars(self), "images": list(self.images)}
        write_atomically(path, f"{json.dumps(values, indent=1)}\n".encode())

    @classmethod
    def read(cls, path: Path, model_sha256: str) -> Ranges:
        """Read a cache back; raises CalibrationError for one that is none, or of another model."""
        if not path.is_file():
            raise CalibrationError(f"{path}: no such calibration cache. Leave out --cache to calibrate")
        try:
            values = json.loads(path.read_text())
            if values.pop("format") != FORMAT:
                raise ValueError(f"format other than {FORMAT}")
            values["images"] = tuple(values["images"])
            ranges = cls(**values)
            if not ranges.by_method or not set(ranges.by_method) <= set(METHODS):
                raise ValueError(f"methods {sorted(ranges.by_method)}, known are {', '.join(METHODS)}")
            for found in ranges.by_method.values():
                _check_ranges(found)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CalibrationError(
                f"{path} is no calibration cache ({error}). Leave out --cache to calibrate"
            ) from error
        if ranges.model_sha256 != model_sha256:
            raise CalibrationError(
                f"{path} was made for the model {ranges.model_sha256[:12]}, this one is {model_sha256[:12]}: "
                "its ranges do not fit. Leave out --cache to calibrate"
            )
        return ranges


def _check_ranges(found: Mapping[str, Any]) -> None:
    wrong = [name for name, value in found.items() if not isinstance(value, int | float) or not 0 <= value < np.inf]
    if wrong:
        raise ValueError(f"range {found[wrong[0]]!r} of {wrong[0]}, expected a number from 0 on")


def observe(
    model: ModelProto, tensors: Iterable[str], inputs: Iterable[NDArray[np.uint8]], count: int, progress: bool = True
) -> dict[Method, dict[str, float]]:
    """Run a float32 graph over pictures and find the range of each of ``tensors`` by every method.

    Args:
        model: without Q/DQ pairs.
        tensors: of the graph.
        inputs: pictures, uint8 ``[1, H, W, 3]``.
        count: how many they are.
        progress: draw a progress line on stderr.

    Raises:
        CalibrationError: an activation is not finite.
    """
    histograms = {name: Histogram() for name in tensors}
    session = session_with_outputs(model, list(histograms))
    for picture in track(inputs, "calibrating", count, progress):
        for name, values in zip(histograms, session.run(list(histograms), {INPUT_NAME: picture}), strict=True):
            flat = values.reshape(-1)
            if not np.isfinite(flat).all():
                raise CalibrationError(f"{name} has values that are not finite. Export the model again as float32")
            histograms[name].add(flat[:: -(-flat.size // MOST_VALUES)], float(np.abs(flat).max()))
    return {method: {name: found.range(method) for name, found in histograms.items()} for method in METHODS}


def session_with_outputs(model: ModelProto, names: list[str]) -> Any:
    """ONNX Runtime on the CPU, with these tensors of the graph as further outputs."""
    onnxruntime = optional.load("onnxruntime")
    copy = ModelProto.FromString(model.SerializeToString())
    present = {output.name for output in copy.graph.output}
    copy.graph.output.extend(ValueInfoProto(name=name) for name in names if name not in present)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(copy.SerializeToString(), options, providers=["CPUExecutionProvider"])
