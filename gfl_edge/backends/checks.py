"""Checks that every backend makes on its input."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gfl_edge.errors import InputError
from gfl_edge.spec import SIZE_STEP, ModelSpec


def check_batch(images: NDArray[np.uint8], spec: ModelSpec, max_batch: int | None) -> None:
    """Raise InputError unless ``images`` is a batch that a backend of ``spec`` can run."""
    found = f"{images.dtype} {list(images.shape)}"
    if images.dtype != np.uint8 or images.ndim != 4 or not len(images) or not _takes(images.shape[1:], spec):
        raise InputError(
            f"input is {found}, {spec.name} takes uint8 [N, {_sizes(spec)}, 3]. Resize frames with "
            "gfl_edge.preprocess.resize_into, or export the model with --input-size H W"
        )
    if max_batch is not None and len(images) > max_batch:
        raise InputError(
            f"batch of {len(images)} frames, this engine was built for at most {max_batch}. "
            f"Split the batch or rebuild with: python export/to_trt.py --max-batch {len(images)}"
        )


def _takes(shape: tuple[int, ...], spec: ModelSpec) -> bool:
    *size, channels = shape
    smallest, largest = spec.size_range
    within = all(low <= side <= high for low, side, high in zip(smallest, size, largest, strict=True))
    whole = spec.short_long is None or not any(side % SIZE_STEP for side in size)
    return within and whole and channels == 3


def _sizes(spec: ModelSpec) -> str:
    smallest, largest = spec.size_range
    if smallest == largest:
        return f"{smallest[0]}, {smallest[1]}"
    sides = (f"{low} to {high} in steps of {SIZE_STEP}" for low, high in zip(smallest, largest, strict=True))
    return ", ".join(sides)
