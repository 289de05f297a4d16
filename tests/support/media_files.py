"""Videos and images of plain gray, and what is in the files of a run."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np


def make_video(path: Path, frames: int, fps: float = 25.0, size_wh: tuple[int, int] = (64, 48)) -> Path:
    """A Motion JPEG video whose frame i is gray level 8 * i."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), fps, size_wh)
    assert writer.isOpened()
    for i in range(frames):
        writer.write(np.full((size_wh[1], size_wh[0], 3), 8 * i, np.uint8))
    writer.release()
    return path


def make_image(path: Path, level: int = 100, hw: tuple[int, int] = (20, 30)) -> Path:
    assert cv2.imwrite(str(path), np.full((*hw, 3), level, np.uint8))
    return path


def frames_of(path: Path) -> list[np.ndarray]:
    capture = cv2.VideoCapture(str(path))
    assert capture.isOpened(), f"{path} does not play"
    frames = []
    while (read := capture.read())[0]:
        frames.append(read[1])
    capture.release()
    return frames


def rate_of(path: Path) -> float:
    return float(cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FPS))


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def assert_nothing_left_over(folder: Path) -> None:
    assert [path.name for path in folder.iterdir() if "partial" in path.name] == []


def jpeg_with_exif(jpeg: bytes, orientation: int, thumbnail: bytes = b"") -> bytes:
    """``jpeg`` with a segment of EXIF data, which says how to turn it and may hold a small JPEG."""
    entry = struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0)
    segment = b"Exif\0\0MM\0*" + struct.pack(">IH", 8, 1) + entry + bytes(4) + thumbnail
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + jpeg[2:]


def make_uneven_video(path: Path, times_ms: list[int]) -> Path:
    """An MPEG-4 video whose frames, as those of :func:`make_video`, are shown at uneven times, from 0."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 25.0, (64, 48))
    assert writer.isOpened()
    for i in range(len(times_ms)):
        writer.write(np.full((48, 64, 3), 8 * i, np.uint8))
    writer.release()
    content = path.read_bytes().replace(b"edts", b"free")  # the edit list ends the video where it ended before
    ticks = int.from_bytes(content[(at := content.index(b"mdhd") + 16) : at + 4], "big")  # a second
    lasting = np.diff([*times_ms, times_ms[-1] + 40]) * ticks // 1000
    start = content.index(b"stts") - 4
    end = start + int.from_bytes(content[start : start + 4], "big")
    rows = b"".join(struct.pack(">II", 1, duration) for duration in lasting.tolist())
    table = struct.pack(">I4sII", 16 + len(rows), b"stts", 0, len(lasting)) + rows
    for outer in (b"moov", b"trak", b"mdia", b"minf", b"stbl"):  # the data lie before them and do not move
        at = content.rindex(outer, 0, start) - 4
        size = int.from_bytes(content[at : at + 4], "big") + len(table) - (end - start)
        content = content[:at] + struct.pack(">I", size) + content[at + 4 :]
    assert content.index(b"mdat") < start
    path.write_bytes(content[:start] + table + content[end:])
    return path
