"""What keeps count of a run, and the line that shows it."""

from __future__ import annotations

import io

import numpy as np
import pytest

from gfl_edge.camera import status
from gfl_edge.camera.status import CAMERA_STAGES, LatencyHistogram, RecentRate, StageTimes, StatusLine
from tests.support.fake_sources import Clock


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("stream", "seconds"), [(Terminal(), 0.5), (io.StringIO(), 10.0)])
def test_status_line(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, seconds: float) -> None:
    time = Clock()
    monkeypatch.setattr(status, "time", time)
    times = StageTimes()
    with StatusLine(total=400, load=lambda: "waiting: network 1; dropped 7", stream=stream) as line:
        for index in range(210):
            time.now += 0.1
            times.add(dict.fromkeys(CAMERA_STAGES, 1.0 if index < 100 else 4.0))
            line.update(index + 1, times)
    text = stream.getvalue()
    drawn = [line for line in text.replace("\r", "\n").split("\n") if line]
    assert len(drawn) == pytest.approx(21 / seconds, abs=4)
    assert (
        "/400, 10.0 FPS; ms: read 4.0, preprocess 4.0, network 4.0, postprocess 4.0, draw 4.0, write 4.0; "
        "waiting: network 1; dropped 7"
    ) in drawn[-1]
    assert text.endswith("\n")
    assert ("\r" in text) == stream.isatty()


def test_stage_times(monkeypatch: pytest.MonkeyPatch) -> None:
    time = Clock()
    monkeypatch.setattr(status, "time", time)
    times = StageTimes()
    assert (times.recent_fps(), times.mean_ms()["read"]) == (0.0, 0.0)
    for ms in (9.0, 9.0, 9.0, 1.0, 1.0, 1.0):
        times.add(dict.fromkeys(CAMERA_STAGES, ms))
        time.now += 0.75
    assert times.mean_ms()["network"] == 5.0
    assert times.recent_ms()["network"] == 1.0
    assert times.recent_fps() == pytest.approx(1 / 0.75)
    time.now += 100
    times.add(dict.fromkeys(CAMERA_STAGES, 1.0))
    assert 0 < times.recent_fps() < 0.02, "slower than a frame in two seconds"


def test_percentiles_against_numpy() -> None:
    values = np.random.default_rng(0).lognormal(3, 1, 20_000)
    histogram = LatencyHistogram()
    assert histogram.to_dict() == {"p50": 0.0, "p99": 0.0, "max": 0.0}
    for value in values:
        histogram.add(float(value))
    for percent in (1, 50, 90, 99):
        expected = np.percentile(values, percent, method="inverted_cdf")
        assert histogram.percentile_ms(percent) == pytest.approx(expected, rel=0.03)
    assert histogram.max_ms == values.max()
    assert histogram.percentile_ms(100) <= values.max()


@pytest.mark.parametrize("ms", [0.0, 1e-9, 0.01, 1.0, 1e12])
def test_one_time_is_every_percentile(ms: float) -> None:
    histogram = LatencyHistogram()
    histogram.add(ms)
    assert histogram.max_ms == ms
    assert histogram.percentile_ms(50) == pytest.approx(ms, rel=0.03, abs=0.01) or ms == 1e12
    assert histogram.percentile_ms(50) <= ms


def test_the_recent_rate_falls_to_nothing_when_frames_stay_away(monkeypatch: pytest.MonkeyPatch) -> None:
    time = Clock()
    monkeypatch.setattr(status, "time", time)
    rate = RecentRate()
    assert rate.fps() == 0.0
    for period, expected in ((0.1, 10.0), (5.0, 0.2)):
        for _ in range(50):
            time.now += period
            rate.add()
        assert rate.fps() == pytest.approx(expected)
    time.now += 9
    assert rate.fps() == pytest.approx(0.2), "late by less than two of its intervals"
    time.now += 2
    assert rate.fps() == 0.0


def test_latencies_are_counted_up_to_ends() -> None:
    latency = LatencyHistogram()
    for ms in (1.0, 5.0, 50.0, 700.0):
        latency.add(ms)
    assert latency.counts_up_to([0.5, 2.0, 60.0, 10_000.0]) == (0, 1, 3, 4)
    assert latency.sum_ms == 756.0
