"""What is reported of a server, without one."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks.serving import load, triton
from gfl_edge.errors import InputError

FRAME = np.zeros((4, 6, 3), np.uint8)


def test_without_its_environment_it_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"python3\.10 -m venv FOLDER/env .*pip install nvidia-pytriton==.*--folder FOLDER"
    ):
        triton.measure(tmp_path)


def test_all_ask_at_once_until_the_time_is_over() -> None:
    asked, opened = [], []

    @contextlib.contextmanager
    def connect() -> Iterator[Callable[[np.ndarray], None]]:
        mine = threading.get_ident()

        def ask(frame: np.ndarray) -> None:
            assert threading.get_ident() == mine, "of the thread that connected"
            asked.append(frame.shape)
            time.sleep(0.02)

        opened.append(mine)
        yield ask

    rate, ms = load.together([connect] * 4, FRAME, 0.3)
    assert len(set(opened)) == 4
    assert len(asked) == len(ms) + 4 * load.WARM_UP
    assert all(one >= 20 for one in ms)
    assert 4 / 0.3 < rate <= 4 / 0.02


def test_rates_are_the_median_of_the_rounds_and_times_of_all_requests() -> None:
    found = load._summary([(10.0, [100.0] * 10), (30.0, [33.0] * 30), (20.0, [50.0] * 20)])
    assert found == {"images_per_second": 20.0, "rounds": [10.0, 30.0, 20.0], "p50_ms": 41.5, "p90_ms": 100.0}
    result = load._result([(40.0, [25.0])], [{"images_per_second": 20.0}, {"images_per_second": 30.0}])
    assert result["best_over_local"] == 0.75


def test_ports_that_somebody_has_are_left_out() -> None:
    first = triton.free_ports(3)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", first + 1))
        assert triton.free_ports(3) != first
