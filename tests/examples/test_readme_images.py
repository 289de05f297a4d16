"""The annotated frames of the README: which frame is taken, and what an index beyond the clip is answered with."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from examples.readme_images import main, read_frame
from gfl_edge.errors import InputError

FRAMES = 5


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Frames that are as bright as 40 times their index."""
    path = tmp_path_factory.mktemp("clip") / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (64, 48))
    for index in range(FRAMES):
        writer.write(np.full((48, 64, 3), 40 * index, np.uint8))
    writer.release()
    return path


def test_the_frame_of_the_index_is_read(clip):
    assert read_frame(f"{clip}:3").mean() == pytest.approx(120, abs=3)


@pytest.mark.parametrize("frame", ["clip.avi", "clip.avi:last", ":3"])
def test_what_is_no_frame_is_refused(frame):
    with pytest.raises(InputError, match=r"expected CLIP:FRAME, such as street\.mp4:120"):
        read_frame(frame)


def test_a_frame_beyond_the_clip_is_refused(clip):
    with pytest.raises(InputError, match=f"has no frame {FRAMES}"):
        read_frame(f"{clip}:{FRAMES}")


def test_two_frames_lie_side_by_side(clip, tmp_path, capsys):
    output = tmp_path / "images" / "two.webp"
    assert main([f"{clip}:0", f"{clip}:4", "-o", str(output)]) == 0
    assert capsys.readouterr().out.strip() == str(output)
    left, right = np.hsplit(cv2.imread(str(output)), 2)
    assert (left.mean() < 10, right.mean() > 140) == (True, True)
