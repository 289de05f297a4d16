"""What the tests of the camera share, and that every run takes its threads with it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from gfl_edge.camera import feeds, pipeline
from tests.support.fake_detector import FakeDetector
from tests.support.fake_sources import Sources


@pytest.fixture(autouse=True)
def surroundings(ctrl_c: None, no_screen: None) -> None:
    pass


@pytest.fixture
def detector() -> FakeDetector:
    return FakeDetector()


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch) -> Sources:
    return Sources(monkeypatch)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that hang are left to themselves at once."""
    for module in (feeds, pipeline):
        monkeypatch.setattr(module, "STOP_SECONDS", 0.1)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    deadline = time.monotonic() + 10
    while ours() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert ours() == []


def ours() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("gfl_edge")]
