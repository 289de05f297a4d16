"""What a backend is: something that runs one model on batches of ready-made inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from gfl_edge.errors import InputError
from gfl_edge.ops.postprocess import Outputs
from gfl_edge.ops.preprocess import AnyFrame, Placement
from gfl_edge.spec import ModelSpec

Performance = Literal["latency", "throughput"]  # one image as soon as possible, or as many images a second


class Backend(Protocol):
    """Runs a model. Implementations are not thread-safe; make one per thread."""

    name: str  # "openvino", "onnxruntime", "tensorrt", "rtx"
    spec: ModelSpec
    max_batch: int | None  # largest batch it accepts; None: any

    def run(self, images: NDArray[np.uint8]) -> Outputs:
        """Run uint8 ``[N, H, W, 3]`` BGR of the model's input size.

        Returns the arrays of ``spec.output_names``; those of a "raw" model are float16 where its precision is fp16,
        else float32.
        A backend that does NMS after a model without returns those of ``spec.detection_names`` instead.
        They may be reused by the next call.

        Raises:
            InputError: wrong shape or dtype, or a batch larger than ``max_batch``.
            BackendError: the library failed.
        """
        ...

    def describe(self) -> dict[str, str]:
        """Library, version and device, for reports."""
        ...

    def close(self) -> None:
        """Free what the backend holds; it cannot run any more. Calling it twice is fine."""
        ...


@runtime_checkable
class FrameBackend(Backend, Protocol):
    """A backend that also brings frames to the input's size, faster than the caller could."""

    def run_frames(self, frames: Sequence[AnyFrame], input_hw: tuple[int, int]) -> tuple[Outputs, list[Placement]]:
        """Run one or more frames, uint8 ``[h, w, 3]`` BGR or NV12 of any sizes, at an input of ``input_hw`` pixels.

        Returns what :meth:`Backend.run` does, and where each frame lies in the input.

        Raises:
            InputError: a size that the model does not take, more frames than ``max_batch``, or one that is no image.
            BackendError: the library failed.
        """
        ...


class Begun(Protocol):
    """A run that was begun. One thread may wait for it while another begins the next."""

    def outputs(self) -> Outputs:
        """Wait for what :meth:`Backend.run` returns. The arrays are overwritten after :meth:`release`.

        Raises:
            BackendError: the library failed.
        """
        ...

    def release(self) -> None:
        """Let another run take the place of this one, after waiting for its end. Calling it twice is fine."""
        ...


@runtime_checkable
class OverlappingFrameBackend(FrameBackend, Protocol):
    """A backend that has several runs on frames under way at once.

    Attributes:
        in_flight: how many, at most.
    """

    in_flight: int

    def begin_frames(self, frames: Sequence[AnyFrame], input_hw: tuple[int, int]) -> tuple[Begun, list[Placement]]:
        """Begin what :meth:`FrameBackend.run_frames` does, as soon as less than ``in_flight`` runs are under way.

        The frames may change afterwards. Raises as :meth:`FrameBackend.run_frames`.
        """
        ...


@runtime_checkable
class OverlappingBackend(Backend, Protocol):
    """A backend that has several runs under way at once.

    Attributes:
        in_flight: how many, at most.
    """

    in_flight: int

    def begin(self, images: NDArray[np.uint8]) -> Begun:
        """Begin what :meth:`Backend.run` does, as soon as less than ``in_flight`` runs are under way.

        The images must not change until it is released. Raises as :meth:`Backend.run`.
        """
        ...


def checked_backend(candidate: object) -> Backend:
    """``candidate``, if it has what a :class:`Backend` has; raises InputError that says what is missing."""
    name = type(candidate).__name__
    missing = [
        *(value for value in ("name", "spec", "max_batch") if not hasattr(candidate, value)),
        *(f"{method}()" for method in ("run", "describe", "close") if not callable(getattr(candidate, method, None))),
    ]
    if missing:
        raise InputError(
            f"{name} is not a backend: it has no {', '.join(missing)}. Give a model file, or an object with what "
            "gfl_edge.backends.base.Backend lists"
        )
    backend = cast(Backend, candidate)
    if not isinstance(backend.spec, ModelSpec):
        raise InputError(
            f"the spec of the backend {name} is a {type(backend.spec).__name__}, expected a gfl_edge.spec.ModelSpec"
        )
    return backend
