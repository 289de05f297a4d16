"""Video files, as a source opens and reads them."""

from __future__ import annotations

import itertools
import tempfile
from contextlib import closing
from functools import cache
from pathlib import Path

from gfl_edge.media.hardware import packet_times_ms
from gfl_edge.media.opening import open_source
from tests.fuzz.reader import Reader

FRAMES = 3


@cache
def seeds() -> list[bytes]:
    """The same three frames in each container that OpenCV always writes."""
    import cv2
    import numpy as np

    image, contents = np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8), []
    with tempfile.TemporaryDirectory() as folder:
        for suffix, code in ((".avi", "MJPG"), (".mp4", "mp4v")):
            path = Path(folder, f"seed{suffix}")
            writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*code), 10.0, (16, 16))
            for _ in range(FRAMES):
                writer.write(image)
            writer.release()
            contents.append(path.read_bytes())
    return contents


def first_frames(path: Path) -> object:
    """No more of them than there were, as a damaged file may claim any number."""
    with open_source(path, reconnect_seconds=0) as frames:
        return [frame.image.shape for frame in itertools.islice(frames, FRAMES)]


def packet_times(path: Path) -> object:
    """Those of the first packets, as a Jetson reads them beside its decoder."""
    with closing(packet_times_ms(str(path))) as times:
        return list(itertools.islice(times, FRAMES))


READERS = [Reader("video", first_frames, seeds, ".avi"), Reader("video packets", packet_times, seeds, ".avi")]
