"""The files that torch.save wrote before version 1.6: pickles one after the other, then the storages, as RangiLyu's."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import IO, Any

import torch

from train.weights.archive import MAX_PICKLE_BYTES
from train.weights.placeholder import Placeholder
from train.weights.rebuilding import StorageReference, TensorBuilder, refer
from train.weights.unpickling import DamagedError, Unpickler

MAGIC_NUMBER, VERSION = 0x1950A86A20F9469CFC6C, 1001
MAGIC = b"\x80"  # every pickle from protocol 2 on starts so


class LegacyStorages:
    """The storages of a file, which are filled after its pickles were read, as they lie behind them.

    Args:
        size_bytes: of the file.
    """

    def __init__(self, size_bytes: int) -> None:
        self._left = size_bytes
        self._references: dict[str, StorageReference] = {}
        self._found: dict[str, torch.UntypedStorage] = {}

    def refer(self, identifier: Any) -> StorageReference | Placeholder:
        """See :func:`train.weights.rebuilding.refer`."""
        reference = refer(identifier)
        if isinstance(reference, StorageReference):
            known = self._references.setdefault(reference.key, reference)
            if (known.dtype, known.size_bytes) != (reference.dtype, reference.size_bytes):
                raise DamagedError("its pickle gives a storage two sizes or types")
        return reference

    def find(self, key: str, size_bytes: int) -> torch.UntypedStorage:
        """See :class:`train.weights.rebuilding.Storages`."""
        if key not in self._found:
            self._left -= size_bytes
            if self._left < 0:
                raise DamagedError("its storages have more bytes than the file")
            self._found[key] = torch.empty(size_bytes, dtype=torch.uint8).untyped_storage()
        return self._found[key]

    def fill(self, file: IO[bytes], keys: Any) -> None:
        """Read the storages from where ``file`` is, in the order of ``keys``."""
        if not isinstance(keys, list) or len({str(key) for key in keys}) != len(keys):
            raise DamagedError("it does not list its storages")
        for key in map(str, keys):
            reference = self._references.get(key)
            count = int.from_bytes(_read(file, 8), "little")
            if reference is None or count != reference.count:
                raise DamagedError("its storages are others than its pickle says")
            self._fill(file, key, reference.size_bytes)
        if missing := self._found.keys() - set(map(str, keys)):
            raise DamagedError(f"{len(missing)} of its storages are missing")

    def _fill(self, file: IO[bytes], key: str, size_bytes: int) -> None:
        if key not in self._found:
            file.seek(size_bytes, os.SEEK_CUR)
        elif size_bytes:
            values = torch.empty(0, dtype=torch.uint8).set_(self._found[key])
            if file.readinto(values.numpy().data) != size_bytes:  # type: ignore[attr-defined]
                raise DamagedError("it ends in the middle of a storage")


def _read(file: IO[bytes], count: int) -> bytes:
    found = file.read(count)
    if len(found) != count:
        raise DamagedError("it ends before its last storage")
    return found


def _is(value: Any, number: int) -> bool:
    return isinstance(value, int) and value == number  # a tensor is compared value by value


def read_legacy(file: IO[bytes], size_bytes: int) -> tuple[Any, Mapping[str, Placeholder]]:
    """What a file holds, and the names that its pickles mention.

    Args:
        file: as opened in binary mode.
        size_bytes: of it.

    Raises:
        DamagedError: another file, damaged, or larger than the bounds.
    """
    storages = LegacyStorages(size_bytes)
    data = file.read(MAX_PICKLE_BYTES)
    unpickler = Unpickler(data, TensorBuilder(storages).functions, storages.refer)
    if not _is(unpickler.load(), MAGIC_NUMBER):
        raise DamagedError("it is a pickle that torch.save did not write. Where it was made, save it with torch.save")
    version, system = unpickler.load(), unpickler.load()
    if not _is(version, VERSION):
        raise DamagedError(f"its format is not {VERSION}, the only one there is")
    if isinstance(system, dict) and system.get("little_endian") is False:
        raise DamagedError("it was written on a big-endian machine. Save it again on another")
    content, keys = unpickler.load(), unpickler.load()
    file.seek(unpickler.position)
    storages.fill(file, keys)
    return content, unpickler.names
