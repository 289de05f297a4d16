"""Checks that every backend makes on its input."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gfl_edge.errors import InputError
from gfl_edge.spec import ModelSpec


def check_batch(images: NDArray[np.uint8], spec: ModelSpec, max_batch: int | None) -> None:
    """Raise InputError unless ``images`` is a batch that a backend of ``spec`` can run."""
    height, width = spec.input_hw
    found = f"{images.dtype} {list(images.shape)}"
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (height, width, 3) or not len(images):
        raise InputError(
            f"input is {found}, {spec.name} takes uint8 [N, {height}, {width}, 3]. Resize frames with "
            "gfl_edge.preprocess.resize_into, or export the model with --input-size H W"
        )
    if max_batch is not None and len(images) > max_batch:
        raise InputError(
            f"batch of {len(images)} frames, this engine was built for at most {max_batch}. "
            f"Split the batch or rebuild with: python export/to_trt.py --max-batch {len(images)}"
        )
