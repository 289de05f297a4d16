"""Whether a video file is whole, and stays so while it grows: OpenCV's writer does not say when the disk is full."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import BinaryIO

from gfl_edge.errors import OutputError
from gfl_edge.files import check_output, free_bytes

RESERVE_BYTES = 8 << 20  # that stay free for the index and for what lies in the buffers of the writer
INDEX_BYTES = 64  # of a frame, at most
MAX_STILL_FRAMES = 20_000  # without a byte; the writer's buffers hold a quarter of a megabyte, a black frame takes 20


class Growth:
    """A video file that is being written.

    Args:
        file: that grows.
        name: of the video, for messages.

    Raises:
        OutputError: there is no room for it, or a quota or limit.
    """

    def __init__(self, file: Path, name: Path) -> None:
        check_output(name, RESERVE_BYTES)
        self._file, self._name = file, name
        self._size_bytes, self._grown_at = 0, 0

    def check(self, frames: int, next_bytes: int) -> None:
        """Raise OutputError unless there is room for another frame and the index of all.

        Args:
            frames: written so far.
            next_bytes: of the next one, before it is encoded.
        """
        free, needed = free_bytes(self._file), RESERVE_BYTES + next_bytes + INDEX_BYTES * frames
        if free is not None and free < needed:
            raise OutputError(
                f"{self._name} cannot be written any more: {free / 1e6:.0f} MB are free on its disk, and "
                f"{needed / 1e6:.0f} MB are needed to finish it. Make room there, or choose another place"
            )
        size_bytes = self._file.stat().st_size
        if size_bytes != self._size_bytes:
            self._size_bytes, self._grown_at = size_bytes, frames
        elif frames - self._grown_at > MAX_STILL_FRAMES:
            raise OutputError(
                f"{self._name} does not grow beyond {size_bytes / 1e6:.0f} MB: the disk takes no more of it. Choose "
                "another place"
            )

    def check_whole(self) -> None:
        """Raise OutputError unless the finished file is whole."""
        with self._file.open("rb") as file:
            whole = (_ends_as_avi if self._file.suffix.lower() == ".avi" else _ends_as_mp4)(file)
        if not whole:
            raise OutputError(
                f"{self._name} could not be finished: the disk took {self._file.stat().st_size / 1e6:.1f} MB and no "
                "index. It was deleted. Make room, or choose another place"
            )


def _ends_as_mp4(file: BinaryIO) -> bool:
    """Whether the boxes of an MP4 file, the index among them, end where the file does."""
    end, at, names = file.seek(0, os.SEEK_END), 0, set[bytes]()
    while at < end:
        file.seek(at)
        header = file.read(16)
        if len(header) < 8:
            return False
        size, name = struct.unpack(">I4s", header[:8])
        if size == 1 and len(header) == 16:
            size = int.from_bytes(header[8:], "big")
        if size == 0:  # to the end of the file
            size = end - at
        if size < 8:
            return False
        names.add(name)
        at += size
    return at == end and b"moov" in names


def _ends_as_avi(file: BinaryIO) -> bool:
    """Whether the RIFF chunks of an AVI file end where the file does; their lengths are written last."""
    end, at = file.seek(0, os.SEEK_END), 0
    while at < end:
        file.seek(at)
        header = file.read(8)
        if len(header) < 8 or header[:4] != b"RIFF":
            return False
        size = 8 + int.from_bytes(header[4:], "little")
        if (end - at - size) % (1 << 32) == 0:  # of a writer that knows nothing beyond 4 GB
            return size > 8
        at += size + size % 2
    return False
