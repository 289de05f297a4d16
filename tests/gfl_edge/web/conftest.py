"""Pages of runs with a made-up detector; none leaves a thread behind. They need the extra ``web``."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from tests.support.fake_sources import FakeSource
from tests.support.live_page import Running


@pytest.fixture(autouse=True)
def surroundings(ctrl_c: None, no_screen: None) -> None:
    for module in ("starlette", "uvicorn", "prometheus_client"):
        pytest.importorskip(module)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    deadline = time.monotonic() + 10
    while _ours() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert _ours() == []


def _ours() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("gfl_edge")]


@pytest.fixture
def running() -> Iterator[Running]:
    """A camera of 50 frames a second and a page that is open to this machine."""
    from gfl_edge.web.page import LivePage

    with Running(LivePage("0"), FakeSource("cam", None, live=True, period_s=0.02, hw=(96, 128))) as run:
        yield run
