"""Checkpoint files written by hand, opcode by opcode, for what no torch.save would write."""

from __future__ import annotations

import pickle
import struct
import zipfile
import zlib
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

PROTO = b"\x80\x02"
MAGIC_NUMBER = 0x1950A86A20F9469CFC6C


def text(value: str) -> bytes:
    """A text, as torch.save writes it."""
    return pickle.BINUNICODE + struct.pack("<I", len(value.encode())) + value.encode()


def integer(value: int) -> bytes:
    """An integer of any size."""
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return pickle.LONG1 + bytes([len(data)]) + data


def named(module: str, name: str) -> bytes:
    """A class or function."""
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()


def tuple_of(*parts: bytes) -> bytes:
    """A tuple."""
    return pickle.MARK + b"".join(parts) + pickle.TUPLE


def dict_of(entries: Mapping[str, bytes]) -> bytes:
    """A dictionary."""
    items = b"".join(text(key) + value for key, value in entries.items())
    return pickle.EMPTY_DICT + pickle.MARK + items + pickle.SETITEMS


def storage(key: str = "0", count: int = 4, kind: str = "FloatStorage") -> bytes:
    """The persistent id of a storage."""
    return tuple_of(text("storage"), named("torch", kind), text(key), text("cpu"), integer(count)) + pickle.BINPERSID


def tensor(size: tuple[int, ...], stride: tuple[int, ...], offset: int = 0, of: bytes | None = None) -> bytes:
    """A tensor that views a storage."""
    sides, steps = (tuple_of(*map(integer, numbers)) for numbers in (size, stride))
    arguments = tuple_of(of or storage(), integer(offset), sides, steps, pickle.NEWFALSE, pickle.NONE)
    return named("torch._utils", "_rebuild_tensor_v2") + arguments + pickle.REDUCE


def legacy(body: bytes, storages: bytes = pickle.EMPTY_LIST) -> bytes:
    """A file of torch before 1.6 with that content."""
    parts = (integer(MAGIC_NUMBER), integer(1001), pickle.EMPTY_DICT, body, storages)
    return b"".join(PROTO + part + pickle.STOP for part in parts)


def archive(body: bytes, members: Mapping[str, bytes] | None = None, method: int = zipfile.ZIP_STORED) -> bytes:
    """A zip file of torch with that content, and a storage "0" of four floats unless ``members`` says otherwise."""
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        file.writestr("x/data.pkl", PROTO + body + pickle.STOP)
        for name, content in ({"data/0": bytes(16)} if members is None else members).items():
            file.writestr(f"x/{name}", content)
    return buffer.getvalue()


def with_body(content: bytes, body: bytes) -> bytes:
    """A zip file of torch.save with another pickle, of the same length, and its checksum."""
    with zipfile.ZipFile(BytesIO(content)) as file:
        info = next(info for info in file.infolist() if info.filename.endswith("data.pkl"))
        old = file.read(info)
    assert len(old) == len(body)
    crcs = (struct.pack("<I", zlib.crc32(one)) for one in (old, body))
    return content.replace(old, body).replace(*crcs)


def write(path: Path, content: bytes) -> Path:
    """Write it and return where."""
    path.write_bytes(content)
    return path
