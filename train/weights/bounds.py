"""How much the content of a checkpoint stands for: its parts may be the same object many times, or contain themselves.

What passes is a tree for whoever walks, compares or prints it, however small the file is that it came from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from train.weights.unpickling import MAX_OPCODES, MAX_TEXTS, DamagedError

MAX_VALUES = MAX_OPCODES
MAX_DEPTH = 50
MAX_TENSOR_SHARE, MIN_TENSOR_BYTES = 4, 1 << 24  # of the bytes of a file, as tensors may share them


@dataclass(frozen=True, slots=True)
class _Extent:
    values: int = 1
    text_bytes: int = 0
    tensor_bytes: int = 0
    depth: int = 1


_ONE = _Extent()


def check_tree(content: Any, file_bytes: int) -> None:
    """Raise DamagedError where a content is deeper, or stands for more values, text or tensors, than the bounds.

    Args:
        content: dictionaries, lists and tuples of any values.
        file_bytes: size of its file.
    """
    _Measure(max(MIN_TENSOR_BYTES, MAX_TENSOR_SHARE * file_bytes)).extent(content, MAX_DEPTH)


class _Measure:
    """Measures each object once, however often it is met, so that it takes no longer than to read the pickle."""

    def __init__(self, max_tensor_bytes: int) -> None:
        self._max_tensor_bytes = max_tensor_bytes
        self._known: dict[int, _Extent] = {}

    def extent(self, value: Any, levels: int) -> _Extent:
        """That of a value which may be so many levels deep."""
        if isinstance(value, Tensor):
            return _Extent(tensor_bytes=value.numel() * value.element_size())
        if isinstance(value, (str, bytes)):
            return _Extent(text_bytes=len(value))
        if not isinstance(value, (dict, list, tuple)):
            return _ONE
        if (known := self._known.get(id(value))) is None:
            known = self._known[id(value)] = self._sum(value, levels)
        if known.depth > levels:
            raise DamagedError(f"its content is nested more than {MAX_DEPTH} deep, or contains itself")
        return known

    def _sum(self, value: Any, levels: int) -> _Extent:
        if not levels:
            raise DamagedError(f"its content is nested more than {MAX_DEPTH} deep, or contains itself")
        values, text_bytes, tensor_bytes, depth = 1, 0, 0, 0
        inner = (*value.keys(), *value.values()) if isinstance(value, dict) else value
        for part in inner:
            extent = self.extent(part, levels - 1)
            values += extent.values
            text_bytes += extent.text_bytes
            tensor_bytes += extent.tensor_bytes
            depth = max(depth, extent.depth)
        if values > MAX_VALUES or text_bytes > MAX_TEXTS:
            raise DamagedError(f"its content stands for more than {MAX_VALUES} values or {MAX_TEXTS} characters")
        if tensor_bytes > self._max_tensor_bytes:
            raise DamagedError(
                f"its tensors stand for more than {self._max_tensor_bytes} bytes: they are the same ones many times"
            )
        return _Extent(values, text_bytes, tensor_bytes, depth + 1)
