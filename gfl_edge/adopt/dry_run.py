"""Running a foreign model: by ONNX Runtime, or, where that is not installed, by ONNX's reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gfl_edge import optional
from gfl_edge.errors import ModelFileError
from gfl_edge.ops.onnx_graph import copy_model, open_session

Arrays = dict[str, NDArray[Any]]


def runner(model: Any, outputs: Sequence[str], origin: str) -> Callable[[Arrays], Arrays]:
    """A function from a model's inputs to some of its tensors, by name.

    Raises:
        ModelFileError: it cannot be loaded; and so, of its function, where it cannot be run.
    """
    names = list(outputs)
    try:
        if optional.available("onnxruntime"):
            run = open_session(model, names).run
        else:
            copy = copy_model(model)
            del copy.graph.output[:]
            copy.graph.output.extend(optional.load("onnx").ValueInfoProto(name=name) for name in names)
            run = optional.load("onnx.reference").ReferenceEvaluator(copy).run
    except Exception as error:  # its exception types are private
        raise _failure(origin, error) from error

    def call(inputs: Arrays) -> Arrays:
        try:
            return dict(zip(names, run(names, inputs), strict=True))
        except Exception as error:
            raise _failure(origin, error) from error

    return call


def noise(shape: tuple[int, ...], seed: int = 0) -> NDArray[np.uint8]:
    """Random images of that shape, gray levels."""
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def _failure(origin: str, error: Exception) -> ModelFileError:
    reason = " ".join(str(error).split())[:300]
    return ModelFileError(f"{origin} cannot be run ({reason}). Does it run where it was exported?")
