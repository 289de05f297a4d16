"""What a model's activations look like on images, and the file that keeps it.

Processors differ in the last bits of what they compute. So ranges and means are kept in few digits: two processors give
the same ones, and then the same INT8 file, unless a value lies within a millionth of where rounding turns.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from calib.histogram import METHODS, STEPS, Histogram, Method
from calib.qdq import Range
from gfl_edge.errors import CalibrationError, InputError
from gfl_edge.files import write_atomically
from gfl_edge.ops.onnx_graph import open_session
from gfl_edge.parsing.fields import Limits, Sha256
from gfl_edge.parsing.json_text import json_text, read_json
from gfl_edge.parsing.validation import build, shown
from gfl_edge.progress import track
from gfl_edge.spec import INPUT_NAME

FORMAT = 3
RANGE_BITS = 6  # of the mantissa that ranges keep: they are at most 1/32 wider than observed
MEAN_STEPS = 128  # of a channel's mean, in the range of its tensor
MAX_CACHE_BYTES = 1 << 25  # that of a ResNet-101 with 2048 channels takes 8 MB
ADVICE = "Leave out --cache to calibrate"

Magnitude = Annotated[float, Limits(ge=0, le=1e30)]  # float32 holds it
Value = Annotated[float, Limits(ge=-1e30, le=1e30)]


@dataclass(frozen=True)
class Observed:
    """What calibration found, and from what.

    Attributes:
        channel_ranges: tensor between convolutions -> largest magnitude of each channel, see :mod:`calib.equalize`.
        ranges: method -> quantized tensor -> magnitude at which it is clipped, once the channels are equalized.
        bounds: quantized tensor -> least and largest value of it, once they are.
        channel_means: input of a quantized convolution -> mean of each channel, once they are equalized.
        model_sha256: of the ONNX file.
        images_sha256: over names and contents of the images, in order.
        images: their names.
    """

    channel_ranges: dict[str, list[Magnitude]]
    ranges: Annotated[dict[Method, dict[str, Magnitude]], Limits(min_length=1)]
    bounds: dict[str, list[Value]]
    channel_means: dict[str, list[Value]]
    model_sha256: Sha256
    images_sha256: Sha256
    images: tuple[str, ...]

    def clipped(self, method: Method) -> dict[str, Range]:
        """Where each quantized tensor is clipped by a method: at its magnitude, or where its values end before.

        Raises:
            CalibrationError: the cache has no ranges by it, or no bounds of a tensor.
        """
        if method not in self.ranges:
            raise CalibrationError(f"the cache has no ranges by {method}. {ADVICE}")
        found = self.ranges[method]
        missing = [name for name in found if len(self.bounds.get(name, ())) != 2]
        if missing:
            raise CalibrationError(f"the cache has no bounds of {missing[0]}. {ADVICE}")
        ends = {name: self.bounds[name] for name in found}
        return {name: (max(-at, ends[name][0]), min(at, ends[name][1])) for name, at in found.items()}

    def write(self, path: Path) -> None:
        """Write the cache as JSON."""
        values = {"format": FORMAT, **vars(self), "images": list(self.images)}
        write_atomically(path, f"{json_text(values, indent=1)}\n".encode())

    @classmethod
    def read(cls, path: Path, model_sha256: str) -> Observed:
        """Read a cache back; raises CalibrationError for one that is none, or of another model."""
        if not path.is_file():
            raise CalibrationError(f"{path}: no such calibration cache. Leave out --cache to calibrate")
        values = read_json(path, ADVICE, CalibrationError, MAX_CACHE_BYTES)
        found = values.pop("format", None) if isinstance(values, dict) else None
        if type(found) is not int or found != FORMAT:
            raise CalibrationError(
                f"{path} is no calibration cache: format {shown(found)}, this gfl_edge reads {FORMAT}. {ADVICE}"
            )
        try:
            observed = build(cls, values)
        except InputError as error:
            raise CalibrationError(f"{path} is no calibration cache: {error}. {ADVICE}") from error
        if observed.model_sha256 != model_sha256:
            raise CalibrationError(
                f"{path} was made for the model {observed.model_sha256[:12]}, this one is {model_sha256[:12]}: "
                "its ranges do not fit. Leave out --cache to calibrate"
            )
        return observed


def observe(
    model: ModelProto,
    tensors: Iterable[str],
    conv_inputs: Collection[str],
    inputs: Iterable[NDArray[np.uint8]],
    count: int,
    progress: bool = True,
    unsigned: bool = False,
) -> tuple[dict[Method, dict[str, float]], dict[str, list[float]], dict[str, list[float]]]:
    """Run a float32 graph over images and find the range of each of ``tensors`` by every method.

    Args:
        model: without Q/DQ pairs.
        tensors: of the graph.
        conv_inputs: those of them, ``[N, C, H, W]``, whose channels' means are wanted.
        inputs: images, uint8 ``[1, H, W, 3]``.
        count: how many they are.
        progress: draw a progress line on stderr.
        unsigned: the tensors get uint8 with a zero of its own each, which has more steps than INT8.

    Returns:
        Ranges by method and tensor, bounds by tensor, and means of channels by tensor.

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
    steps = {name: found.unsigned_steps() if unsigned else STEPS for name, found in histograms.items()}
    ranges = {
        method: {name: rounded_up(found.range(method, steps[name])) for name, found in histograms.items()}
        for method in METHODS
    }
    bounds = {name: [-rounded_up(-found.least), rounded_up(found.most)] for name, found in histograms.items()}
    grids = {name: rounded_up(histograms[name].largest) / MEAN_STEPS for name in means}
    return ranges, bounds, {name: _in_steps(values, grids[name]) for name, values in means.items()}


def rounded_up(magnitude: float) -> float:
    """The next of the numbers with ``RANGE_BITS`` bits of mantissa, for one that is not negative."""
    mantissa, exponent = math.frexp(magnitude)
    return math.ldexp(math.ceil(mantissa * 2**RANGE_BITS), exponent - RANGE_BITS)


def _in_steps(values: NDArray[np.float64], step: float) -> list[float]:
    return (np.round(values / step) * step).tolist() if step > 0 else values.tolist()
