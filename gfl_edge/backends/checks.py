"""Checks that every backend makes on its input."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gfl_edge.errors import BackendError, InputError
from gfl_edge.ops.onnx_ports import output_shapes
from gfl_edge.spec import SIZE_STEP, ModelSpec


def check_batch(images: NDArray[np.uint8], spec: ModelSpec, max_batch: int | None) -> None:
    """Raise InputError unless ``images`` is a batch that a backend of ``spec`` can run."""
    if images.dtype != np.uint8:
        raise _unfit(f"{images.dtype} {list(images.shape)}", spec)
    check_shape(images.shape, spec, max_batch)


def check_shape(shape: tuple[int, ...], spec: ModelSpec, max_batch: int | None) -> None:
    """Raise InputError unless a batch of ``shape`` is one that a backend of ``spec`` can run."""
    smallest, largest = spec.size_range
    step = 1 if spec.short_long is None else SIZE_STEP
    if (
        len(shape) != 4
        or not shape[0]
        or shape[3] != 3
        or not all(low <= side <= high for low, side, high in zip(smallest, shape[1:3], largest, strict=True))
        or any(side % step for side in shape[1:3])
    ):
        raise _unfit(f"uint8 {list(shape)}", spec)
    if max_batch is not None and shape[0] > max_batch:
        raise InputError(
            f"batch of {shape[0]} frames, this engine was built for at most {max_batch}. "
            f"Split the batch or rebuild with: gfl-edge build --model MODEL.onnx --max-batch {shape[0]}"
        )


def check_outputs(outputs: dict[str, NDArray[np.generic]], spec: ModelSpec, images: NDArray[np.uint8]) -> None:
    """Raise BackendError unless a network gave, for each of ``images``, what its description says."""
    anchors = spec.anchors_at((images.shape[1], images.shape[2]))
    for name, (_, shape) in output_shapes(spec).items():
        found = outputs[name].shape
        rows = found[1] if spec.has_nms and len(found) > 1 else anchors
        expected = (len(images), *(rows if side is None else side for side in shape[1:]))
        if found != expected:
            raise BackendError(
                f"{spec.name} gave {name} of the shape {list(found)}, its description says "
                f"{list(expected)}. The model does not fit its metadata: export it again"
            )


def _unfit(found: str, spec: ModelSpec) -> InputError:
    least, most = spec.size_range
    sizes = ", ".join(
        str(low) if low == high else f"{low} to {high} in steps of {SIZE_STEP}"
        for low, high in zip(least, most, strict=True)
    )
    return InputError(
        f"input is {found}, {spec.name} takes uint8 [N, {sizes}, 3]. Resize frames with "
        "gfl_edge.ops.preprocess.resize_into, or export the model with --input-size H W"
    )
