"""Tensors from what a pickle says of them, without any of the functions that it asks to be called.

A tensor is a view into a storage, which is read where the first tensor needs it. Whatever is no tensor of numbers in
memory becomes a :class:`Placeholder` that says what it is, so that whoever needs it can name it by its key.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from train.weights.placeholder import Placeholder
from train.weights.unpickling import DamagedError, plain_key

MAX_DIMENSIONS = 16
MAX_VALUES = 1 << 48
MAX_TENSORS = 50_000  # of a file; each takes about a kilobyte besides its values

DTYPES = {str(value): value for value in vars(torch).values() if isinstance(value, torch.dtype)}
QUANTIZED_DTYPES = {torch.qint8, torch.quint8, torch.qint32, torch.quint4x2, torch.quint2x4}
# Before torch 2 a storage had a type
STORAGE_TYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "QInt8Storage": torch.qint8,
    "QUInt8Storage": torch.quint8,
    "QInt32Storage": torch.qint32,
    "QUInt4x2Storage": torch.quint4x2,
    "QUInt2x4Storage": torch.quint2x4,
}
# What calls of these names give
REBUILT = {
    "collections.OrderedDict": "dictionary",
    "torch.Size": "size",
    "torch._utils._rebuild_tensor": "tensor",
    "torch._utils._rebuild_tensor_v2": "tensor",
    "torch._utils._rebuild_tensor_v3": "tensor of a type",
    "torch._utils._rebuild_parameter": "parameter",
    "torch._utils._rebuild_parameter_with_state": "parameter",
    "torch._tensor._rebuild_from_type_v2": "subclass",
}
UNTYPED = "torch.storage.UntypedStorage"
SUBCLASS, OTHER_TYPE, QUANTIZED = "a tensor of the class ", "a tensor of the type ", "a quantized tensor"
TENSOR_KINDS = (SUBCLASS, OTHER_TYPE, QUANTIZED)  # how what stands for tensors of other kinds starts


class Storages(Protocol):
    """Where the bytes of storages are."""

    def find(self, key: str, size_bytes: int) -> torch.UntypedStorage:
        """The storage of that key, the same object each time.

        Raises:
            DamagedError: there is none, or it has another size.
        """
        ...


@dataclass(frozen=True, slots=True)
class StorageReference:
    """What a persistent id names: bytes, not read yet.

    Attributes:
        key: in the file.
        dtype: of its values; None where each tensor says its own.
        count: of its values; bytes where it has no type.
        view: (first, end) in bytes of the part that is meant.
    """

    key: str
    dtype: torch.dtype | None
    count: int
    view: tuple[int, int] | None = None

    @property
    def size_bytes(self) -> int:
        """Of all of it."""
        return self.count * (1 if self.dtype is None else self.dtype.itemsize)


def refer(identifier: Any) -> StorageReference | Placeholder:
    """What a persistent id stands for: ("storage", type, key, device, values), before torch 1.6 with a view."""
    match identifier:
        case ("storage", Placeholder() as kind, str() | int() as key, _, int(count), *rest) if count >= 0:
            return _refer(kind.original, str(key), count, rest[0] if rest else None)
        case ("module", *_):  # before 1.6: a class with its source text
            return Placeholder(_name(identifier[1]) if len(identifier) > 1 else "module")
    raise DamagedError("its pickle names a storage as no file of torch.save does")


def _refer(kind: str, key: str, count: int, view: Any) -> StorageReference | Placeholder:
    module, _, name = kind.rpartition(".")
    dtype = STORAGE_TYPES.get(name) if module in ("torch", "torch.cuda") else None
    if dtype is None and kind != UNTYPED:
        return Placeholder(kind)
    item_bytes = 1 if dtype is None else dtype.itemsize
    match view:
        case None:
            return StorageReference(key, dtype, count)
        case (_, int(first), int(length)) if min(first, length) >= 0 and first + length <= count:
            return StorageReference(key, dtype, count, (first * item_bytes, (first + length) * item_bytes))
    raise DamagedError("its pickle has a view of a storage that is none")


class TensorBuilder:
    """The functions that torch pickles tensors by, for the storages of one file.

    Args:
        storages: of the file.

    Attributes:
        functions: by the names that pickles have for them.
    """

    def __init__(self, storages: Storages) -> None:
        self._storages = storages
        self._left = MAX_TENSORS
        own = {"tensor": self.tensor, "tensor of a type": self.tensor_of_dtype, "subclass": self.subclass}
        self.functions = {name: own.get(what) or _PLAIN[what] for name, what in REBUILT.items()}

    def tensor(self, storage: Any, offset: Any, size: Any, stride: Any, *_ignored: Any) -> Tensor | Placeholder:
        """A tensor without the gradient flag and the hooks that were pickled with it."""
        return self._tensor(storage, offset, size, stride, None)

    def tensor_of_dtype(
        self, storage: Any, offset: Any, size: Any, stride: Any, _gradient: Any, _hooks: Any, dtype: Any, *_ignored: Any
    ) -> Tensor | Placeholder:
        """As :meth:`tensor`, of a type that no storage had when they had types."""
        if not isinstance(dtype, Placeholder) or dtype.original not in DTYPES:
            return Placeholder(f"{OTHER_TYPE}{_name(dtype)}")
        return self._tensor(storage, offset, size, stride, DTYPES[dtype.original])

    def subclass(self, function: Any, kind: Any, arguments: Any, _state: Any, *_ignored: Any) -> Any:
        """A tensor with attributes, which are left out; one of a class of its own is none that is known."""
        plain = _name(kind) in ("torch.Tensor", "torch.nn.parameter.Parameter")
        if not plain or _name(function) not in self.functions or not isinstance(arguments, tuple):
            return Placeholder(f"{SUBCLASS}{_name(kind)}")
        if _name(function) == "torch._tensor._rebuild_from_type_v2":
            raise DamagedError("its pickle has a tensor in a tensor")
        return self.functions[_name(function)](*arguments)

    def _tensor(
        self, storage: Any, offset: Any, size: Any, stride: Any, dtype: torch.dtype | None
    ) -> Tensor | Placeholder:
        if isinstance(storage, Placeholder):
            return storage
        if not isinstance(storage, StorageReference):
            raise DamagedError("its pickle has a tensor without a storage")
        kind = dtype or storage.dtype
        if kind is None:
            raise DamagedError("its pickle has a tensor of no type")
        if kind in QUANTIZED_DTYPES:
            return Placeholder(QUANTIZED)
        self._left -= 1
        if self._left < 0:
            raise DamagedError(f"its pickle has more than {MAX_TENSORS} tensors")
        first, end = storage.view or (0, storage.size_bytes)
        _check_view(offset, size, stride, (end - first) // kind.itemsize)
        if 0 in size:
            return torch.empty(size, dtype=kind)
        whole = self._storages.find(storage.key, storage.size_bytes)
        part = whole if storage.view is None else whole[first:end]
        return torch.empty(0, dtype=kind).set_(part, offset, size, stride)


def _check_view(offset: Any, size: Any, stride: Any, count: int) -> None:
    """Raise DamagedError unless a view lies within a storage of ``count`` values."""
    for numbers in (size, stride):
        if not isinstance(numbers, tuple) or len(numbers) > MAX_DIMENSIONS or not all(map(_is_natural, numbers)):
            raise DamagedError("its pickle has a tensor whose size or strides are no natural numbers")
    if len(size) != len(stride) or not _is_natural(offset):
        raise DamagedError("its pickle has a tensor with another number of strides than dimensions")
    if math.prod(side or 1 for side in size) >= MAX_VALUES:
        raise DamagedError("its pickle has a tensor of more values than a memory has")
    if 0 in size:
        return
    last = offset + sum((side - 1) * step for side, step in zip(size, stride, strict=True))
    if last >= count:
        raise DamagedError(
            f"a tensor of {' x '.join(map(str, size)) or 'one value'} lies beyond its storage of {count} values"
        )


def _is_natural(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MAX_VALUES


def _name(value: Any) -> str:
    return value.original if isinstance(value, Placeholder) else type(value).__name__


def _dictionary(pairs: Any = ()) -> dict[Any, Any]:
    """An ordered dictionary; Python 2 gave it its entries here."""
    if not isinstance(pairs, (list, tuple)):
        raise TypeError("a dictionary of no pairs")
    return {plain_key(key): value for key, value in pairs}


def _size(sides: Any = ()) -> Any:
    return sides


def _parameter(data: Any, *_ignored: Any) -> Any:
    return data


_PLAIN: dict[str, Callable[..., Any]] = {"dictionary": _dictionary, "size": _size, "parameter": _parameter}
