"""Write the same files again and again, until killed: python -m benchmarks.faults.writing KIND FOLDER."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from gfl_edge.files import write_atomically, write_together
from gfl_edge.media.lines import JsonLinesSink

BYTES = 2_000_000
START = "writing"  # on stdout, once it does


def sealed(number: int, size_bytes: int = BYTES) -> bytes:
    """A content that says itself whether it is whole."""
    body = number.to_bytes(8, "big") * (size_bytes // 8)
    return hashlib.sha256(body).digest() + body


def is_sealed(content: bytes) -> bool:
    """Whether it is whole."""
    return hashlib.sha256(content[32:]).digest() == content[:32]


def write_file(folder: Path, number: int) -> None:
    """One file."""
    write_atomically(folder / "file.bin", sealed(number))


def write_pair(folder: Path, number: int) -> None:
    """Files that belong together."""
    write_together({folder / f"{name}.bin": sealed(number, 100_000) for name in ("a", "b", "c")})


def write_lines(folder: Path, number: int) -> None:
    """Lines into one file."""
    with JsonLinesSink(folder / "lines.jsonl") as sink:
        for index in range(200):
            sink.write({"frame": index, "run": number, "text": "x" * 2000})


def write_video(folder: Path, number: int) -> None:
    """A short video."""
    from gfl_edge.media.sinks import VideoSink

    noise = np.random.default_rng(number).integers(0, 256, (96, 128, 3), np.uint8)
    with VideoSink(folder / "video.mp4", 25) as sink:
        for index in range(30):
            sink.write(np.roll(noise, index, axis=1), index / 25)


def write_checkpoint(folder: Path, number: int) -> None:
    """A checkpoint of training."""
    import torch

    from train.checkpoint import Checkpoint

    Checkpoint({"a": torch.full((500_000,), float(number))}, {}, ("x",), {}).save(folder / "last.pt")


WRITERS: dict[str, Callable[[Path, int], None]] = {
    "file": write_file,
    "files that belong together": write_pair,
    "JSON lines": write_lines,
    "video": write_video,
    "checkpoint": write_checkpoint,
}


def main(kind: str, folder: Path) -> None:
    """Write until killed."""
    WRITERS[kind](folder, 0)
    print(START, flush=True)
    number = 0
    while True:
        number += 1
        WRITERS[kind](folder, number)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
