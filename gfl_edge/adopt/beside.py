"""Weights that a foreign ONNX file keeps in files beside it, as PyTorch writes from version 2.9 on."""

from __future__ import annotations

from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from gfl_edge import optional
from gfl_edge.errors import ModelFileError
from gfl_edge.files import is_file, read_regular
from gfl_edge.parsing.validation import shown

MAX_WEIGHT_BYTES = 1 << 30  # of a model; Protobuf holds less than 2 GiB


def take_in_weights(model: Any, path: Path) -> None:
    """Put the weights that a model keeps beside it into it, in place.

    Args:
        model: ``onnx.ModelProto`` as it was read.
        path: of its file; the others lie in the same folder, or in one within.

    Raises:
        ModelFileError: a file is missing, elsewhere or not of the size that its weights take, or they are too many.
    """
    contents: dict[str, bytes] = {}
    taken = 0
    for tensor in _kept_elsewhere(model):
        said = {entry.key: entry.value for entry in tensor.external_data}
        name = said.get("location", "")
        if name not in contents:
            contents[name] = _content(path, name)
        try:
            start, length = int(said.get("offset", 0)), _size_bytes(tensor)
        except (KeyError, ValueError) as error:
            raise _damaged(path, tensor, name) from error
        taken += length
        if taken > MAX_WEIGHT_BYTES:
            raise ModelFileError(
                f"{path}: its weights take more than {MAX_WEIGHT_BYTES >> 20} MiB, the limit of a model"
            )
        if said.get("length", str(length)) != str(length) or not 0 <= start <= len(contents[name]) - length:
            raise _damaged(path, tensor, name)
        tensor.raw_data = contents[name][start : start + length]
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")


def _kept_elsewhere(model: Any) -> list[Any]:
    nodes = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    inside = [attribute.t for node in nodes for attribute in node.attribute if attribute.HasField("t")]
    return [tensor for tensor in (*model.graph.initializer, *inside) if tensor.data_location or tensor.external_data]


def _content(path: Path, name: str) -> bytes:
    """Of a file in the model's folder: a model says no place outside, and no link leads there."""
    pure = PurePosixPath(name)
    beside = path.parent / pure
    plain = name and not pure.is_absolute() and ".." not in pure.parts and not PureWindowsPath(name).drive
    if not plain or "\0" in name or not beside.resolve().is_relative_to(path.parent.resolve()):
        raise ModelFileError(
            f"{path} keeps weights in the file {shown(name)}, which is not in its folder. Put them into the model: "
            "onnx.save(onnx.load(PATH), PATH)"
        )
    if not is_file(beside):
        raise ModelFileError(f"{path} keeps its weights in {shown(name)}, which is not beside it. Copy both files")
    try:
        return read_regular(beside, MAX_WEIGHT_BYTES)
    except OSError as error:
        raise ModelFileError(f"{beside}, with the weights of {path}, cannot be read: {error.strerror}") from error


def _size_bytes(tensor: Any) -> int:
    """That the values of a tensor take.

    Raises:
        KeyError, ValueError: of a type or a shape that no tensor has.
    """
    dtype = optional.load("onnx.helper").tensor_dtype_to_np_dtype(tensor.data_type)
    count = 1
    for side in tensor.dims:
        if not 0 <= side <= MAX_WEIGHT_BYTES:
            raise ValueError(f"a side of {side}")
        count = min(count * side, MAX_WEIGHT_BYTES)
    return count * int(dtype.itemsize)


def _damaged(path: Path, tensor: Any, name: str) -> ModelFileError:
    return ModelFileError(
        f"{path}: {shown(name)} beside it does not hold the weight {shown(tensor.name)} {list(tensor.dims)[:8]}. Copy "
        "both files again"
    )
