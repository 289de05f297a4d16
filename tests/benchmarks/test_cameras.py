"""Cameras that misbehave on purpose: what the benchmark does to a run, in short, and that a long run stays as it is."""

from __future__ import annotations

import pytest

from benchmarks.camera import soak
from benchmarks.faults.http_camera import http_camera
from gfl_edge.camera import run_camera
from gfl_edge.media.opening import open_source
from tests.support.fake_detector import FakeDetector


@pytest.fixture(autouse=True)
def surroundings(ctrl_c: None, no_screen: None) -> None:
    pass


@pytest.mark.parametrize(
    "path", ["/drop/within-a-frame", "/garbage/noise-as-a-frame", "/refuse/503", "/size/every-frame"]
)
def test_a_camera_that_misbehaves_once_is_read_on(path: str) -> None:
    with http_camera() as camera:
        summary = run_camera(FakeDetector(), f"{camera.url}{path}", max_frames=25, reconnect_seconds=20)
        assert summary.frames == 25
        assert camera.requests[path] > 1 or path.startswith("/size")


def test_a_redirection_to_a_file_opens_no_file() -> None:
    with http_camera() as camera, pytest.raises(Exception, match="cannot be opened or gives no frame"):
        open_source(f"{camera.url}/redirect/to-a-file", reconnect_seconds=0)


def test_the_long_run_in_short(tmp_path: object) -> None:
    found = soak.soak(tmp_path, 500, step=50)  # type: ignore[arg-type]
    assert found["frames"] == 500
    assert [frames for frames, *_ in found["samples"]] == [*range(50, 501, 50)]


@pytest.mark.slow
def test_a_long_run_stays_as_it_is(tmp_path: object) -> None:
    found = soak.soak(tmp_path, 12_000)  # type: ignore[arg-type]
    assert found["frames"] == 12_000
    assert found["reconnects"] >= 2
    assert abs(found["slope_bytes_per_frame"]) < 500, found["samples"]
    assert found["handles"][1] - found["handles"][0] <= 3
    assert found["threads"][1] - found["threads"][0] <= 3
