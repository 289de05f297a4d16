"""What an engine has to look like from outside, and what may be wrong with one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gfl_edge.spec import INPUT_NAME, ModelSpec

if TYPE_CHECKING:
    import tensorrt as trt

# by TensorRT's name, all that the contract has
DTYPE_OF = {"UINT8": np.uint8, "INT32": np.int32, "FLOAT": np.float32, "HALF": np.float16}


@dataclass(frozen=True)
class TensorContract:
    """What one input or output of an engine has to be."""

    dtype: str  # TensorRT's name, "FLOAT"
    item_shape: tuple[int, ...]  # without the batch


def engine_contract(spec: ModelSpec, input_hw: tuple[int, int] | None = None) -> dict[str, TensorContract]:
    """The input and the outputs of an engine of ``spec``, by name, the input first.

    Args:
        spec: the model's description.
        input_hw: the size it is run at, in pixels; None: the largest that it takes.
    """
    input_hw = input_hw or spec.size_range[1]
    tensors = {INPUT_NAME: TensorContract("UINT8", (*input_hw, 3))}
    if spec.has_nms:
        most = spec.max_detections
        outputs = zip(
            spec.detection_names,
            ("INT32", "FLOAT", "FLOAT", "INT32", "FLOAT"),
            ((1,), (most, 4), (most,), (most,), (most, 4)),
            strict=False,  # the last is of models that give sigmas
        )
        return tensors | {name: TensorContract(dtype, shape) for name, dtype, shape in outputs}
    anchors = spec.anchors_at(input_hw)
    dtype, widths = "FLOAT", (4, spec.num_classes, 4)
    if spec.nms == "raw":
        dtype, widths = "HALF" if spec.precision == "fp16" else "FLOAT", (spec.num_classes, 4 * (spec.reg_max + 1), 0)
    pairs = zip(spec.output_names, widths, strict=False)  # the last is of models that give sigmas
    return tensors | {name: TensorContract(dtype, (anchors, width)) for name, width in pairs}


def tensor_problem(engine: trt.ICudaEngine, contract: Mapping[str, TensorContract]) -> str:
    """What differs if the engine's inputs and outputs or their dtypes are not those of the contract; else ""."""
    found = set()
    for name in (engine.get_tensor_name(index) for index in range(engine.num_io_tensors)):
        found.add(f"{engine.get_tensor_mode(name).name.lower()} {name} {engine.get_tensor_dtype(name).name}")
    expected = {
        f"{'input' if name == INPUT_NAME else 'output'} {name} {tensor.dtype}" for name, tensor in contract.items()
    }
    return "" if found == expected else f"has {', '.join(sorted(found))}, expected {', '.join(sorted(expected))}"


def size_problem(engine: trt.ICudaEngine, spec: ModelSpec, max_batch: int) -> str:
    """What differs if the engine does not take the sizes of its spec in batches of 1 to ``max_batch``; else ""."""
    shapes = [_shape(engine.get_tensor_shape(INPUT_NAME))]
    if -1 in shapes[0]:  # only the batch, or only the sides, or both
        shapes = [_shape(dims) for dims in engine.get_tensor_profile_shape(INPUT_NAME, 0)]
    expected = [(batch, *size, 3) for batch, size in zip((1, max_batch), spec.size_range, strict=True)]
    if [shapes[0], shapes[-1]] == expected:
        return ""
    found = f"{list(shapes[0])} to {list(shapes[-1])}"
    return f"takes {INPUT_NAME} of {found}, expected {list(expected[0])} to {list(expected[1])}"


def output_problem(context: trt.IExecutionContext, contract: Mapping[str, TensorContract], batch: int) -> str:
    """What differs if a tensor is not of the contract's shape at the batch that the context is set to; else ""."""
    for name, tensor in contract.items():
        found, expected = _shape(context.get_tensor_shape(name)), (batch, *tensor.item_shape)
        if found != expected:
            return f"has {name} of {list(found)}, expected {list(expected)}"
    return ""


def _shape(dims: trt.Dims) -> tuple[int, ...]:
    return tuple(dims[index] for index in range(len(dims)))
