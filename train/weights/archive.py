"""The zip files that torch.save has written since version 1.6: members stored as they are, without compression.

The directory is read with bounds of its own before anything is believed: Python's zipfile takes memory for as many
members as a file claims to have. Members are not unpacked, only copied, each once, so that all of them together take
no more memory than the file has bytes.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import IO

import torch

from train.weights.naming import short
from train.weights.unpickling import DamagedError

MAX_DIRECTORY_BYTES = 1 << 24
MAX_MEMBERS = 100_000
MAX_PICKLE_BYTES = 1 << 27

MAGIC = b"PK\x03\x04"
_END = struct.Struct("<4s4H2IH")  # of the directory: signature, disks and counts, size, offset, length of the comment
_END_64_LOCATOR = struct.Struct("<4sIQI")
_END_64 = struct.Struct("<4sQ2H2I4Q")
_ENTRY = struct.Struct("<4s6H3I5H2I")
_LOCAL = struct.Struct("<4s5H3I2H")
_FULL_16, _FULL_32 = 0xFFFF, 0xFFFFFFFF
_ENCRYPTED = 1
MAX_COMMENT = 0xFFFF


@dataclass(frozen=True, slots=True)
class Member:
    """A file in the archive.

    Attributes:
        offset: of its local header, in bytes.
        size_bytes: of its content.
        packed_bytes: as it is in the archive.
        crc: of its content; 0: none was computed.
        is_packed: whether it is compressed or encrypted.
    """

    offset: int
    size_bytes: int
    packed_bytes: int
    crc: int
    is_packed: bool


class Archive:
    """A zip file, open for reading.

    Args:
        file: as opened in binary mode.
        size_bytes: of it.

    Attributes:
        members: by name.

    Raises:
        DamagedError: no zip file, damaged, larger than the bounds, or with compressed members.
    """

    def __init__(self, file: IO[bytes], size_bytes: int) -> None:
        self._file, self._size_bytes = file, size_bytes
        self._left = size_bytes
        self.members: dict[str, Member] = {}
        try:
            count, length, self._end = self._find_directory()
            self._read_directory(count, length)
        except struct.error as error:
            raise DamagedError(f"its directory ends in the middle: {error}") from error

    def read(self, name: str) -> bytes:
        """The content of a member of at most MAX_PICKLE_BYTES."""
        member = self._member(name)
        if member.size_bytes > MAX_PICKLE_BYTES:
            raise DamagedError(f"its {_inner(name)} has {member.size_bytes} bytes, expected at most {MAX_PICKLE_BYTES}")
        start = self._start(name, member)
        buffer = bytearray(member.size_bytes)
        self._copy(name, member, start, memoryview(buffer))
        return bytes(buffer)

    def read_storage(self, name: str, size_bytes: int) -> torch.UntypedStorage:
        """The content of a member, which has to have that size."""
        member = self._member(name)
        if member.size_bytes != size_bytes:
            raise DamagedError(f"its {_inner(name)} has {member.size_bytes} bytes, its pickle says {size_bytes}")
        start = self._start(name, member)
        values = torch.empty(size_bytes, dtype=torch.uint8)
        if size_bytes:
            self._copy(name, member, start, values.numpy().data)
        return values.untyped_storage()

    def _member(self, name: str) -> Member:
        if name not in self.members:
            raise DamagedError(f"it has no member {_inner(name)}")
        member = self.members[name]
        if member.is_packed:
            raise DamagedError(
                "its members are compressed or encrypted, which torch.save does not do. Unpack it, and pack it with: "
                "zip -0 -r"
            )
        if member.size_bytes != member.packed_bytes:
            raise DamagedError(f"its directory gives {_inner(name)} two sizes")
        return member

    def _start(self, name: str, member: Member) -> int:
        """Where the content of a member starts, after a look at whether it can."""
        self._left -= member.size_bytes
        if self._left >= 0 and member.offset + _LOCAL.size <= self._end:
            self._file.seek(member.offset)
            header = _LOCAL.unpack(self._file.read(_LOCAL.size))
            start = member.offset + _LOCAL.size + header[9] + header[10]
            if header[0] == MAGIC and start + member.size_bytes <= self._end:
                return start
        raise DamagedError(f"its {_inner(name)} is not where its directory says")

    def _copy(self, name: str, member: Member, start: int, buffer: memoryview) -> None:
        self._file.seek(start)
        if self._file.readinto(buffer) != member.size_bytes:  # type: ignore[attr-defined]
            raise DamagedError(f"its {_inner(name)} ends in the middle")
        if member.crc not in (0, zlib.crc32(buffer)):
            raise DamagedError(f"its {_inner(name)} was changed after it was written: its checksum is another")

    def _find_directory(self) -> tuple[int, int, int]:
        """The directory's number of members, length in bytes, and offset."""
        tail_at = max(0, self._size_bytes - _END.size - MAX_COMMENT)
        self._file.seek(tail_at)
        tail = self._file.read(_END.size + MAX_COMMENT)
        at = tail.rfind(b"PK\x05\x06")
        if at < 0:
            raise DamagedError("its directory, which is at the end of the file, is missing")
        _, _, _, _, count, length, offset, _ = _END.unpack(tail[at : at + _END.size])
        if _FULL_16 in (count,) or _FULL_32 in (length, offset):
            count, length, offset = self._find_directory_64(tail_at + at)
        if count > MAX_MEMBERS or length > MAX_DIRECTORY_BYTES:
            raise DamagedError(f"it has {count} members, expected at most {MAX_MEMBERS}")
        if offset + length > tail_at + at:
            raise DamagedError("its directory is not where its end says")
        return count, length, offset

    def _find_directory_64(self, end_at: int) -> tuple[int, int, int]:
        self._file.seek(max(0, end_at - _END_64_LOCATOR.size))
        signature, _, at, _ = _END_64_LOCATOR.unpack(self._file.read(_END_64_LOCATOR.size))
        if signature != b"PK\x06\x07" or at > end_at:
            raise DamagedError("its directory is not where its end says")
        self._file.seek(at)
        end = _END_64.unpack(self._file.read(_END_64.size))
        if end[0] != b"PK\x06\x06":
            raise DamagedError("its directory is not where its end says")
        return end[7], end[8], end[9]

    def _read_directory(self, count: int, length: int) -> None:
        self._file.seek(self._end)
        directory = self._file.read(length)
        at = 0
        for _ in range(count):
            fields = _ENTRY.unpack_from(directory, at)
            signature = fields[0]
            name_end = at + _ENTRY.size + fields[10]
            extra_end = name_end + fields[11]
            name = directory[at + _ENTRY.size : name_end].decode(errors="replace")
            if signature != b"PK\x01\x02" or name in self.members:
                raise DamagedError("its directory has entries that are none")
            self.members[name] = _member(fields, directory[name_end:extra_end])
            at = extra_end + fields[12]


def _inner(name: str) -> str:
    """A member's name for messages, without the common folder, which is called as the file once was."""
    return short(name.partition("/")[2] or name)


def _member(fields: tuple[int, ...], extra: bytes) -> Member:
    """A member of a directory's entry; numbers that need more than 32 bits are in its field ``extra`` of kind 1."""
    size_bytes, packed_bytes, offset = fields[9], fields[8], fields[16]
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == 1:
            large = iter(struct.unpack_from(f"<{length // 8}Q", extra, at + 4))
            size_bytes, packed_bytes, offset = (
                next(large, number) if number == _FULL_32 else number for number in (size_bytes, packed_bytes, offset)
            )
            break
        at += 4 + length
    return Member(offset, size_bytes, packed_bytes, fields[7], bool(fields[4] or fields[3] & _ENCRYPTED))


class ArchiveStorages:
    """The storages of an archive, each read when it is first needed.

    Args:
        archive: of torch.save.
        folder: in it, which names of members start with, as "model/"; may be empty.
    """

    def __init__(self, archive: Archive, folder: str) -> None:
        self._archive, self._folder = archive, folder
        self._found: dict[str, torch.UntypedStorage] = {}

    def find(self, key: str, size_bytes: int) -> torch.UntypedStorage:
        """See :class:`train.weights.rebuilding.Storages`."""
        if key not in self._found:
            self._found[key] = self._archive.read_storage(f"{self._folder}data/{key}", size_bytes)
        found = self._found[key]
        if found.nbytes() != size_bytes:
            raise DamagedError(f"its pickle gives the storage {key} two sizes")
        return found
