"""What a model's activations look like on images, and the file that keeps it."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from calib.histogram import METHODS, Histogram, Method
from gfl_edge.errors import CalibrationError
from gfl_edge.files import write_atomically
from gfl_edge.ops.onnx_graph import open_session
from gfl_edge.parsing.json_text import json_text
from gfl_edge.progress import track
from gfl_edge.spec import INPUT_NAME

FORMAT = 1


@dataclass(frozen=True)
class Observed:
    """What calibration found, and from what.

    Attributes:
        channel_ranges: tensor between convolutions -> largest magnitude of each channel, see :mod:`calib.equalize`.
        ranges: method -> quantized tensor -> magnitude at which it is clipped, once the channels are equalized.
        channel_means: input of a quantized convolution -> mean of each channel, once they are equalized.
        model_sha256: of the ONNX file.
        images_sha256: over names and contents of the images, in order.
        images: their names.
    """

    channel_ranges: Mapping[str, Sequence[float]]
    ranges: Mapping[Method, Mapping[str, float]]
    channel_means: Mapping[str, Sequence[float]]
    model_sha256: str
    images_sha256: str
    images: tuple[str, ...]

    def write(self, path: Path) -> None:
        """Write the cache as JSON."""
        values = {"format": FORMAT, **vars(self), "images": list(self.images)}
        write_atomically(path, f"{json_text(values, indent=1)}\n".encode())

    @classmethod
    def read(cls, path: Path, model_sha256: str) -> Observed:
        """Read a cache back; raises CalibrationError for one that is none, or of another model."""
        if not path.is_file():
            raise CalibrationError(f"{path}: no such calibration cache. Leave out --cache to calibrate")
        try:
            values = json.loads(path.read_text())
            if values.pop("format") != FORMAT:
                raise ValueError(f"format other than {FORMAT}")
            values["images"] = tuple(values["images"])
            observed = cls(**values)
            if not observed.ranges or not set(observed.ranges) <= set(METHODS):
                raise ValueError(f"methods {sorted(observed.ranges)}, known are {', '.join(METHODS)}")
            for found in observed.ranges.values():
                _check_numbers({name: [value] for name, value in found.items()})
            _check_numbers(observed.channel_ranges)
            _check_numbers(observed.channel_means, least=-np.inf)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CalibrationError(
                f"{path} is no calibration cache ({error}). Leave out --cache to calibrate"
            ) from error
        if observed.model_sha256 != model_sha256:
            raise CalibrationError(
                f"{path} was made for the model {observed.model_sha256[:12]}, this one is {model_sha256[:12]}: "
                "its ranges do not fit. Leave out --cache to calibrate"
            )
        return observed


def _check_numbers(found: Mapping[str, Sequence[Any]], least: float = 0) -> None:
    for name, values in found.items():
        wrong = [v for v in values if not isinstance(v, int | float) or not least <= v < np.inf or v == -np.inf]
        if wrong:
            raise ValueError(f"{wrong[0]!r} for {name}, expected a finite number{' from 0 on' if least == 0 else ''}")


def observe(
    model: ModelProto,
    tensors: Iterable[str],
    conv_inputs: Collection[str],
    inputs: Iterable[NDArray[np.uint8]],
    count: int,
    progress: bool = True,
) -> tuple[dict[Method, dict[str, float]], dict[str, list[float]]]:
    """Run a float32 graph over images and find the range of each of ``tensors`` by every method.

    Args:
        model: without Q/DQ pairs.
        tensors: of the graph.
        conv_inputs: those of them, ``[N, C, H, W]``, whose channels' means are wanted.
        inputs: images, uint8 ``[1, H, W, 3]``.
        count: how many they are.
        progress: draw a progress line on stderr.

    Returns:
        Ranges by method and tensor, and means of channels by tensor.

    Raises:
        CalibrationError: an activation is not finite.
    """
    means: dict[str, NDArray[np.float64]] = {}
    histograms = {name: Histogram() for name in tensors}
    session = open_session(model, list(histograms))
    for image in track(inputs, "calibrating", count, progress):
        for name, values in zip(histograms, session.run(list(histograms), {INPUT_NAME: image}), strict=True):
            flat = values.reshape(-1)
            if not np.isfinite(flat).all():
                raise CalibrationError(f"{name} has values that are not finite. Export the model again as float32")
            histograms[name].add(flat)
            if name in conv_inputs:
                means[name] = means.get(name, np.float64(0)) + values.mean(axis=(0, 2, 3), dtype=np.float64) / count
    ranges = {method: {name: found.range(method) for name, found in histograms.items()} for method in METHODS}
    return ranges, {name: values.tolist() for name, values in means.items()}
