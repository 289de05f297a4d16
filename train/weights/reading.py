"""Reading the tensors of a checkpoint file, in bounded memory and time, without executing what is pickled beside them.

PyTorch's own readers are not used: their safe one refuses the training logs, NumPy scalars and configurations that
mmdetection keeps as Python objects, and a pickle of 375 bytes makes it take all memory there is. Here a pickle is
interpreted by :mod:`train.weights.unpickling`, which knows tensors and plain values and imports nothing; whatever else
a file holds becomes a :class:`Placeholder`, which is only a name.

Reading a file takes at most its own size of memory and 1 GiB more, and time in proportion to its size and a few seconds
more; a small file takes next to nothing. What is returned stands for at most 4 times the file's bytes of tensors
(16 MiB where that is more), is at most 50 levels deep, and has at most 2^19 values. Limits of the parts:

    MAX_FILE_BYTES         of a file
    unpickling.MAX_*       opcodes and texts of a pickle, and bytes of a number
    archive.MAX_*          members of a zip file, and bytes of its directory and pickle
    rebuilding.MAX_*       tensors of a file, and their dimensions
    bounds.MAX_*           depth, values, and bytes of tensors that a content stands for
    MAX_HEADER_BYTES       of safetensors
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Collection
from pathlib import Path
from typing import IO, Any

from torch import Tensor

from gfl_edge import optional
from gfl_edge.errors import CheckpointError
from train.weights import archive, legacy
from train.weights.archive import Archive, ArchiveStorages
from train.weights.bounds import check_tree
from train.weights.foreign import HEAD_BYTES, SAVE_WEIGHTS, recognize, recognize_archive
from train.weights.naming import listed
from train.weights.rebuilding import DTYPES, REBUILT, STORAGE_TYPES, UNTYPED, TensorBuilder, refer
from train.weights.unpickling import DamagedError, Unpickler

logger = logging.getLogger(__name__)

StateDict = dict[str, Tensor]

MAX_FILE_BYTES = 1 << 33
MAX_HEADER_BYTES = 1 << 23
PICKLE = "data.pkl"


class ForeignError(Exception):
    """A file that is no checkpoint; says what it is and what to do."""


def read_content(path: str | Path) -> Any:
    """What a checkpoint file holds: tensors, plain values, and a :class:`Placeholder` for every other object.

    Reads files of ``torch.save``, also of those before version 1.6, and of safetensors, whatever they are called.

    Raises:
        CheckpointError: missing, empty, damaged or foreign file, or one that is larger than the bounds of the module.
        MissingDependencyError: a file of safetensors without that package.
    """
    path = Path(path)
    try:
        if not path.is_file():
            raise CheckpointError(
                f"{path}: no such checkpoint file. Give the path of a .pth or .ckpt file with --weights, or one of the "
                "names that gfl-edge models lists, which is downloaded"
            )
        with path.open("rb") as file:
            return _read(file, path, path.stat().st_size)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}). Check path and permissions") from error


def _read(file: IO[bytes], path: Path, size_bytes: int) -> Any:
    if size_bytes == 0:
        raise CheckpointError(f"{path} is empty (0 bytes). Download or copy it again")
    if size_bytes > MAX_FILE_BYTES:
        raise CheckpointError(
            f"{path} has {size_bytes} bytes, expected a checkpoint of at most {MAX_FILE_BYTES}. {SAVE_WEIGHTS}"
        )
    head = file.read(HEAD_BYTES)
    file.seek(0)
    try:
        if _is_safetensors(head):
            return _read_safetensors(path)
        content, names = _read_torch(file, head, size_bytes)
        check_tree(content, size_bytes)
    except ForeignError as error:
        raise CheckpointError(f"{path} is {error}") from error
    except (DamagedError, struct.error) as error:
        raise CheckpointError(
            f"{path} is truncated or not a PyTorch checkpoint ({size_bytes} bytes read): {error}. Download or copy it "
            "again"
        ) from error
    if skipped := sorted(name for name in names if not _is_known(name)):
        logger.warning("%s: skipped objects that are no tensors: %s", path, listed(skipped))
    return content


def _read_torch(file: IO[bytes], head: bytes, size_bytes: int) -> tuple[Any, Collection[str]]:
    """What a file of torch.save holds, and the names that its pickle mentions."""
    if head.startswith(archive.MAGIC):
        return _read_archive(Archive(file, size_bytes))
    if head.startswith(legacy.MAGIC):
        return legacy.read_legacy(file, size_bytes)
    if foreign := recognize(head):
        raise ForeignError(foreign)
    raise DamagedError("it starts as none does")


def _read_archive(archive: Archive) -> tuple[Any, Collection[str]]:
    if foreign := recognize_archive(archive.members):
        raise ForeignError(foreign)
    folder = next((name for name in archive.members if name.endswith(f"/{PICKLE}")), PICKLE).removesuffix(PICKLE)
    order = f"{folder}byteorder"
    if order in archive.members and archive.read(order) == b"big":
        raise DamagedError("it was written on a big-endian machine. Save it again on another")
    builder = TensorBuilder(ArchiveStorages(archive, folder))
    unpickler = Unpickler(archive.read(folder + PICKLE), builder.functions, refer)
    return unpickler.load(), unpickler.names


def _is_known(name: str) -> bool:
    """Whether a name that a pickle mentions is part of how tensors are pickled."""
    plain = name in REBUILT or name in DTYPES or name == UNTYPED
    return plain or name.rpartition(".")[2] in STORAGE_TYPES


# --- safetensors ---


def _is_safetensors(head: bytes) -> bool:
    """By the length of the header, which is below 4 GiB, and its first character."""
    return head[4:9] == b"\0\0\0\0{"


def _read_safetensors(path: Path) -> Any:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > MAX_HEADER_BYTES:
        raise DamagedError(f"its header has {length} bytes, expected at most {MAX_HEADER_BYTES}")
    safetensors = optional.load("safetensors.torch")
    try:
        return safetensors.load_file(str(path))
    except Exception as error:  # its own class, and those of Python
        raise CheckpointError(f"{path} is truncated or no file of safetensors. Download or copy it again") from error
