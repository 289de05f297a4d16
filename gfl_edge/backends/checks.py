"""Checks of what goes into a backend, and of what comes out of one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gfl_edge.errors import BackendError, InputError
from gfl_edge.ops.onnx_ports import output_shapes
from gfl_edge.spec import CANDIDATE_NAMES, DET_SIGMAS, DETECTION_NAMES, RAW_NAMES, SIGMAS, SIZE_STEP, ModelSpec


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
            f"batch of {shape[0]} frames, this model takes at most {max_batch}. Split the batch, or rebuild an engine "
            f"with: gfl-edge build --model MODEL.onnx --max-batch {shape[0]}"
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


def check_arrays(outputs: Any, images: int, backend: str, spec: ModelSpec, input_hw: tuple[int, int]) -> None:
    """Raise BackendError unless ``outputs`` are arrays as a backend of ``spec``, whoever wrote it, has to give.

    Args:
        outputs: by name, see :meth:`gfl_edge.backends.base.Backend.run`.
        images: that ran; there may be more.
        backend: its name.
        spec: the model's description.
        input_hw: the size that the model was run at, in pixels.
    """
    if not isinstance(outputs, Mapping):
        raise BackendError(f"{backend} gave a {type(outputs).__name__} for {spec.name}: expected arrays by output name")
    names = spec.detection_names if DETECTION_NAMES[0] in outputs else spec.output_names
    found = {name: _described(outputs.get(name)) for name in names}
    counted = "boxes" if names == spec.candidate_names else "det_scores"  # its second dimension is that of the others
    rows = np.shape(outputs[counted])[1:2] if counted in names and found[counted] else ()
    wanted = _output_shapes(spec, *rows) if rows or names == RAW_NAMES else {}
    if names == RAW_NAMES:
        wanted = {name: (spec.anchors_at(input_hw), *shape[1:]) for name, shape in wanted.items()}
    for name in names:
        kinds = "iu" if name in ("num_dets", "det_classes") else "f"
        array: Any = outputs.get(name)
        shape = wanted.get(name)
        if not found[name] or array.dtype.kind not in kinds or len(array) < images or array.shape[1:] != shape:
            sides = ", ".join(map(str, shape or ("?",)))
            raise BackendError(
                f"{backend} gave {found[name] or type(array).__name__} as {name} of {spec.name} for {images} images: "
                f"expected {'whole numbers' if kinds == 'iu' else 'floats'} [{images}, {sides}]"
            )


def _described(array: object) -> str:
    return f"{array.dtype} {list(array.shape)}" if isinstance(array, np.ndarray) else ""


def _output_shapes(spec: ModelSpec, rows: int = 0) -> dict[str, tuple[int, ...]]:
    """Of each output, without the batch, where there are so many anchors or places for detections."""
    return {
        **dict(zip(DETECTION_NAMES, ((1,), (rows, 4), (rows,), (rows,)), strict=True)),
        **dict(zip(CANDIDATE_NAMES, ((rows, 4), (rows, spec.num_classes)), strict=True)),
        **dict(zip(RAW_NAMES, ((rows, spec.num_classes), (rows, 4 * (spec.reg_max + 1))), strict=True)),
        **dict.fromkeys((SIGMAS, DET_SIGMAS), (rows, 4)),
    }


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
