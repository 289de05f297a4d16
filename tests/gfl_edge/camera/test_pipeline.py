"""Queues and stages by themselves, and what keeps count of them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from gfl_edge.camera import pipeline as pipeline_module
from gfl_edge.camera.pipeline import BoundedQueue, EndOfItems, Pipeline, Stopped, join_all
from tests.support.fake_sources import Clock

TIMEOUT = 20.0


class Numbers:
    """Gives 0, 1, 2, ..., and then ends, or fails."""

    def __init__(self, count: int, error: Exception | None = None) -> None:
        self._numbers, self._error = iter(range(count)), error

    def get(self) -> int:
        for number in self._numbers:
            return number
        raise self._error or EndOfItems


@pytest.fixture
def pipeline() -> Iterator[Pipeline]:
    before = set(threading.enumerate())
    with Pipeline() as made:
        yield made
    join_all(set(threading.enumerate()) - before, TIMEOUT)
    assert set(threading.enumerate()) <= before


def drained(queue: BoundedQueue[int]) -> list[int]:
    found = []
    try:
        while True:
            found.append(queue.get())
    except EndOfItems:
        return found


def slow(seconds: float) -> Callable[[int], list[int]]:
    def work(item: int) -> list[int]:
        time.sleep(seconds)
        return [item]

    return work


def test_items_come_in_order_and_then_the_end() -> None:
    queue: BoundedQueue[int] = BoundedQueue(3)
    for item in range(3):
        queue.put(item)
    queue.end()
    assert not queue.over
    assert drained(queue) == [0, 1, 2]
    assert queue.over
    assert (queue.depth().most, queue.depth().capacity) == (3, 3)


def test_the_mean_depth_is_that_over_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(pipeline_module, "time", clock)
    queue: BoundedQueue[int] = BoundedQueue(3)
    clock.now += 100  # before the first item, which does not count
    for act, seconds in ((queue.put, 1.0), (queue.put, 2.0), (queue.put, 1.0)):
        act(0)
        clock.now += seconds
    for _ in range(3):
        queue.get()
    clock.now += 4
    queue.put(0)
    assert queue.depth().mean == pytest.approx((1 * 1 + 2 * 2 + 3 * 1) / 8)


def test_an_error_comes_after_the_items() -> None:
    queue: BoundedQueue[int] = BoundedQueue(2)
    queue.put(1)
    queue.end(ValueError("broken"))
    assert queue.get() == 1
    for _ in range(2):
        with pytest.raises(ValueError, match="broken"):
            queue.get()


def test_a_full_queue_makes_the_giver_wait() -> None:
    queue: BoundedQueue[int] = BoundedQueue(1)
    queue.put(0)
    done = threading.Event()

    def give() -> None:
        queue.put(1)
        done.set()

    thread = threading.Thread(target=give)
    thread.start()
    assert not done.wait(0.05)
    assert queue.get() == 0
    assert done.wait(TIMEOUT)
    assert (queue.get(), queue.dropped) == (1, 0)
    thread.join(TIMEOUT)


def test_the_newest_replaces_the_oldest() -> None:
    queue: BoundedQueue[int] = BoundedQueue(1)
    for item in range(5):
        queue.put_newest(item)
    queue.end()
    assert drained(queue) == [4]
    assert queue.dropped == 4


def test_waiting_is_limited() -> None:
    queue: BoundedQueue[int] = BoundedQueue(1)
    assert queue.get_within(0.01) is None
    assert queue.poll() is None


@pytest.mark.parametrize("act", ["put", "wait_for_room", "put_newest", "get"])
def test_who_waits_is_sent_away(act: str) -> None:
    queue: BoundedQueue[int] = BoundedQueue(1)
    if act in ("put", "wait_for_room"):
        queue.put(0)
    left = threading.Event()

    def work() -> None:
        arguments = (1,) if act in ("put", "put_newest") else ()
        try:
            while True:
                getattr(queue, act)(*arguments)
        except Stopped:
            left.set()

    thread = threading.Thread(target=work)
    thread.start()
    time.sleep(0.02)
    queue.stop()
    assert left.wait(TIMEOUT)
    thread.join(TIMEOUT)
    assert len(queue) == 0


def test_stages_run_at_the_same_time(pipeline: Pipeline) -> None:
    count, seconds = 20, 0.02
    a = pipeline.add("a", Numbers(count), slow(seconds), "b", 1)
    b = pipeline.add("b", a, slow(seconds), "c", 1)
    c = pipeline.add("c", b, slow(seconds), "d", 1)
    start = time.perf_counter()
    assert drained(c) == list(range(count))
    assert time.perf_counter() - start < 2.5 * count * seconds, "one after the other it takes 3 times as long"
    assert list(pipeline.queues) == ["b", "c", "d"]


def test_a_stage_may_give_several_items_or_none(pipeline: Pipeline) -> None:
    found = pipeline.add("twice", Numbers(4), lambda item: [item] * (item % 2 * 2), "end", 1)
    assert drained(found) == [1, 1, 3, 3]


def test_queues_stay_within_their_capacity(pipeline: Pipeline) -> None:
    made = []

    def make(item: int) -> list[int]:
        made.append(item)
        return [item]

    fast = pipeline.add("fast", Numbers(1000), make, "end", 2)
    for wanted in range(10):
        assert fast.get() == wanted
        assert len(made) <= wanted + 1 + 2 + 1, "taken, waiting, and one on its way"
    assert fast.depth().most <= 2


def test_a_stage_takes_nothing_before_there_is_room_for_it(pipeline: Pipeline) -> None:
    """What waits in front of it may be replaced by something newer meanwhile."""
    taken = []
    pipeline.add("eager", Numbers(10), lambda item: taken.append(item) or [item], "end", 1)
    deadline = time.monotonic() + TIMEOUT
    while not taken and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.05)
    assert taken == [0]


@pytest.mark.parametrize("error", [ValueError("in the work"), KeyboardInterrupt()])
def test_an_error_of_a_stage_travels_after_the_items_before_it(pipeline: Pipeline, error: BaseException) -> None:
    def work(item: int) -> list[int]:
        if item == 3:
            raise error
        return [item]

    first = pipeline.add("first", Numbers(100), work, "second", 1)
    last = pipeline.add("second", first, slow(0.001), "end", 1)
    assert [last.get() for _ in range(3)] == [0, 1, 2]
    with pytest.raises(type(error)):
        last.get()


def test_an_error_of_the_source(pipeline: Pipeline) -> None:
    last = pipeline.add("only", Numbers(2, ValueError("lost")), slow(0), "end", 4)
    assert [last.get(), last.get()] == [0, 1]
    with pytest.raises(ValueError, match="lost"):
        last.get()


def test_stopping_ends_every_stage_at_once() -> None:
    before, pipeline = set(threading.enumerate()), Pipeline()
    a = pipeline.add("a", Numbers(10**9), slow(0), "b", 1)
    pipeline.add("b", a, slow(0), "c", 1)
    time.sleep(0.02)
    start = time.monotonic()
    with pipeline:
        stages = set(threading.enumerate()) - before
    assert time.monotonic() - start < 1
    assert len(stages) == 2
    assert not any(stage.is_alive() for stage in stages)


def test_a_thread_that_hangs_is_not_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    end = threading.Event()
    thread = threading.Thread(target=end.wait, name="gfl_edge hanging", daemon=True)
    thread.start()
    start = time.monotonic()
    with caplog.at_level(logging.WARNING):
        join_all([thread], 0.05)
    assert time.monotonic() - start < 5
    assert "gfl_edge hanging does not answer" in caplog.text
    end.set()
    thread.join(TIMEOUT)
