"""Videos that go into a pipeline, which is here a stand-in; tests/gfl_edge/media/test_gstreamer.py has real ones."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from gfl_edge.errors import InputError, OutputError
from gfl_edge.media import streams
from gfl_edge.media.stream_process import BrokenPipelineError
from gfl_edge.media.streams import StreamSink
from gfl_edge.media.targets import StreamTarget
from tests.support.fake_pipelines import Pipelines, fail

SERVER = StreamTarget("rtsp://h/l", "appsrc ! x", repeats=True, even=True)
FILE = StreamTarget("appsrc ! filesink", "appsrc ! x", repeats=False, even=False)


@pytest.fixture
def pipelines(monkeypatch: pytest.MonkeyPatch) -> Pipelines:
    monkeypatch.setattr(streams, "MIN_DELAY_S", 0.01)
    return Pipelines(monkeypatch)


def feed(sink: StreamSink, count: int, size_hw: tuple[int, int] = (48, 64)) -> None:
    for index in range(count):
        image = np.full((*size_hw, 3), index, np.uint8)
        sink.expect(image)
        sink.write(image, index / 25)


def wait_for(event: threading.Event) -> None:
    assert event.wait(10)


def test_a_file_loses_no_image_however_slow_the_pipeline(pipelines: Pipelines) -> None:
    pipelines.on_write = lambda number, count: time.sleep(0.005)
    with StreamSink(FILE, 25) as sink:
        feed(sink, 20)
    assert pipelines.taken == [list(range(20))]
    assert (pipelines.opened, pipelines.finished) == ([("appsrc ! x", 25.0, (48, 64))], [0])
    assert (sink.frames, sink.dropped, sink.error) == (20, 0, None)


def test_a_live_source_is_not_held_up_by_a_pipeline_that_hangs(pipelines: Pipelines) -> None:
    released = threading.Event()
    pipelines.on_write = lambda number, count: wait_for(released)
    sink = StreamSink(SERVER, 25, live=True)
    start = time.monotonic()
    feed(sink, 50)
    assert time.monotonic() - start < 1
    released.set()
    sink.close()
    assert pipelines.taken[0][-1] == 49, "the newest are kept"
    assert sink.dropped == 50 - len(pipelines.taken[0]) > 40


def test_a_pipeline_that_is_broken_is_an_error_before_the_first_image(pipelines: Pipelines) -> None:
    pipelines.on_open = lambda number: fail(BrokenPipelineError("no element nosuch"))
    sink = StreamSink(SERVER, 25, reconnect_seconds=30)
    with pytest.raises(InputError, match="output rtsp://h/l cannot be started: no element nosuch"):
        sink.expect(np.zeros((48, 64, 3), np.uint8))
    sink.close()
    assert pipelines.taken == [[]]


def test_a_file_that_cannot_be_opened_is_an_error(pipelines: Pipelines) -> None:
    pipelines.on_open = lambda number: fail(OutputError("no such folder"))
    with pytest.raises(InputError, match="cannot be started: no such folder"), StreamSink(FILE, 25) as sink:
        feed(sink, 1)


def test_a_server_that_is_not_there_yet_is_tried_again(pipelines: Pipelines) -> None:
    pipelines.on_open = lambda number: fail(OutputError("refused")) if number < 3 else None
    with StreamSink(SERVER, 25, reconnect_seconds=30) as sink:
        feed(sink, 1)
        while len(pipelines.taken) < 4:
            time.sleep(0.005)
        feed(sink, 5)
    assert pipelines.taken[3][-1] == 4
    assert sink.error is None


def test_a_server_that_drops_is_said_and_found_again(
    pipelines: Pipelines, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(streams, "STEADY_SECONDS", 0.0)
    pipelines.on_write = lambda number, count: fail(OutputError("reset")) if (number, count) == (0, 3) else None
    with StreamSink(SERVER, 25, reconnect_seconds=30) as sink:
        feed(sink, 10)
        while len(pipelines.taken) < 2:
            time.sleep(0.005)
        feed(sink, streams.STEADY_FRAMES + 1)
    assert pipelines.taken[0] == [0, 1, 2]
    assert pipelines.finished == [1]
    assert "output rtsp://h/l failed: reset; trying again for 30 s" in caplog.text
    assert "output rtsp://h/l is back" in caplog.text
    assert sink.frames == sink.dropped + sum(map(len, pipelines.taken)) + 1, "one was under way"


def test_what_does_not_come_back_is_given_up_and_frames_go_on(
    pipelines: Pipelines, caplog: pytest.LogCaptureFixture
) -> None:
    pipelines.on_write = lambda number, count: fail(OutputError("reset"))
    with StreamSink(SERVER, 25, reconnect_seconds=0.1) as sink:
        deadline = time.monotonic() + 10
        while sink.error is None and time.monotonic() < deadline:
            feed(sink, 1)
            time.sleep(0.01)
        feed(sink, 5)
    assert str(sink.error) == "output rtsp://h/l is given up: reset"
    assert caplog.text.count("the run goes on without it") == 1
    assert sink.frames == sink.dropped + len(pipelines.taken), "one was under way each time"


def test_a_file_that_fails_on_the_way_is_not_written_over(pipelines: Pipelines) -> None:
    pipelines.on_write = lambda number, count: fail(OutputError("disk is full")) if count == 2 else None
    sink = StreamSink(FILE, 25, reconnect_seconds=30)
    feed(sink, 10)
    sink.close()
    assert len(pipelines.taken) == 1
    assert "disk is full" in str(sink.error)


def test_a_file_that_cannot_be_finished_is_an_error(pipelines: Pipelines) -> None:
    pipelines.on_finish = lambda number: fail(OutputError("no room for the index"))
    sink = StreamSink(FILE, 25)
    feed(sink, 3)
    with pytest.raises(OutputError, match="no room for the index"):
        sink.close()


@pytest.mark.parametrize(
    ("target", "size_hw", "expected"),
    [(SERVER, (49, 67), (48, 64)), (FILE, (49, 67), (49, 64)), (SERVER, (48, 64), (48, 64))],
)
def test_sizes_that_pipelines_cannot_take_are_cut(
    pipelines: Pipelines, target: StreamTarget, size_hw: tuple[int, int], expected: tuple[int, int]
) -> None:
    with StreamSink(target, 25) as sink:
        feed(sink, 2, size_hw)
        feed(sink, 1, (100, 300))
    assert pipelines.opened[0][2] == expected
    assert len(pipelines.taken[0]) == 3


def test_the_rate_of_a_live_source_is_measured(pipelines: Pipelines) -> None:
    with StreamSink(SERVER, 60, measure=True) as sink:
        feed(sink, 12)
    assert pipelines.opened[0][1] == 25.0
    assert pipelines.taken == [list(range(12))]


def test_without_an_image_nothing_is_started(pipelines: Pipelines) -> None:
    StreamSink(SERVER, 25).close()
    assert pipelines.taken == []


def test_a_live_source_does_not_wait_for_a_pipeline_that_starts(pipelines: Pipelines) -> None:
    started = threading.Event()
    pipelines.on_open = lambda number: wait_for(started)
    sink = StreamSink(SERVER, 25, live=True)
    start = time.monotonic()
    feed(sink, 5)
    assert time.monotonic() - start < 1
    started.set()
    sink.close()
    assert pipelines.taken == [[3, 4]], "the newest"


@pytest.mark.parametrize("frames_after", [0, 1])
def test_a_live_source_is_told_later_of_a_pipeline_that_is_broken(pipelines: Pipelines, frames_after: int) -> None:
    known = threading.Event()

    def fails(number: int) -> None:
        assert known.wait(10)
        raise BrokenPipelineError("no element nosuch")

    pipelines.on_open = fails
    sink = StreamSink(SERVER, 25, live=True, reconnect_seconds=30)
    feed(sink, 3)
    known.set()
    if frames_after:
        while sink.error is None:
            time.sleep(0.001)
        with pytest.raises(InputError, match="cannot be started: no element nosuch"):
            feed(sink, 1)
        sink.close()
    else:
        with pytest.raises(InputError, match="cannot be started: no element nosuch"):
            sink.close()


def test_a_file_of_a_live_source_has_the_frames_that_came_while_it_was_started(pipelines: Pipelines) -> None:
    started = threading.Event()
    pipelines.on_open = lambda number: wait_for(started)
    sink = StreamSink(FILE, 25, live=True, measure=True)
    feed(sink, 40)
    started.set()
    sink.close()
    assert pipelines.taken == [list(range(40))]
    assert sink.dropped == 0


def test_what_waits_for_a_file_is_limited_in_bytes(pipelines: Pipelines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "FILE_WAITING_BYTES", 5 * 3 * 48 * 64)
    started = threading.Event()
    pipelines.on_open = lambda number: wait_for(started)
    sink = StreamSink(FILE, 25, live=True)
    feed(sink, 40)
    started.set()
    sink.close()
    assert pipelines.taken == [[35, 36, 37, 38, 39]]
