"""What the kernels are measured on: made like a detector's outputs, of any size, and real ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.kernels import head_outputs
from benchmarks.kernels.library import nms_params
from benchmarks.kernels.memory import Array
from gfl_edge.cuda.kernels import LOGITS, NmsParams
from gfl_edge.spec import read_spec
from gfl_edge.zoo.bundled import bundled_model

PAIRS = 2000  # above the threshold in every image, whatever its size
REG_MAX = 16
STRIDE = 8


@dataclass(frozen=True)
class KernelInput:
    """One call of the NMS: how a result names it, its parameters and its arrays."""

    named: dict[str, Any]
    params: NmsParams
    arrays: dict[str, Array]


def input_hw(anchors: int) -> tuple[int, int]:
    """Pixels of an input that has so many anchors at one level of stride 8."""
    columns = next(n for n in range(int(anchors**0.5), 0, -1) if anchors % n == 0)
    return STRIDE * columns, STRIDE * (anchors // columns)


def made(anchors: int, classes: int, batch: int, dtype: type, score_threshold: float = 0.05) -> KernelInput:
    """Random logits, most far below 0.05, PAIRS per image above it, and boxes that hardly overlap."""
    rng = np.random.default_rng(0)
    logits = rng.normal(-8, 1, (batch, anchors * classes)).clip(max=-4).astype(np.float32)
    above = min(PAIRS, anchors * classes)
    for image in logits:
        image[rng.choice(image.size, above, replace=False)] = rng.uniform(-2.9, 3, above)
    reg: NDArray[np.float32] = rng.normal(0, 2, (batch, anchors, 4 * (REG_MAX + 1))).astype(np.float32)
    arrays: dict[str, Array] = {"scores": logits.reshape(batch, anchors, classes).astype(dtype)}
    params = nms_params(
        arrays["scores"],
        score_kind=LOGITS,
        reg_max=REG_MAX,
        strides=(STRIDE,),
        input_hw=input_hw(anchors),
        point_offset=0.5,
        score_threshold=score_threshold,
    )
    size = {"anchors": anchors, "classes": classes, "batch": batch}
    named = {"input": "made", **size, "dtype": np.dtype(dtype).name, "score_threshold": score_threshold}
    return KernelInput(named, params, {**arrays, "reg_logits": reg.astype(dtype)})


def real() -> Iterator[KernelInput]:
    """Those of :mod:`benchmarks.kernels.head_outputs`, at each threshold."""
    spec = read_spec(bundled_model())
    for name, arrays in head_outputs.load().items():
        for threshold in head_outputs.THRESHOLDS:
            params = nms_params(
                arrays["scores"],
                score_kind=LOGITS,
                reg_max=spec.reg_max,
                strides=spec.strides,
                input_hw=spec.input_hw,
                point_offset=spec.point_offset,
                score_threshold=threshold,
            )
            size = {"anchors": params.num_anchors, "classes": params.num_classes, "batch": params.batch}
            named = {"input": f"real, {name}", **size, "dtype": "float16", "score_threshold": threshold}
            yield KernelInput(named, params, arrays)
