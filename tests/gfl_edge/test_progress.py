"""Lines of progress, on a terminal and elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from gfl_edge import progress
from gfl_edge.progress import progress_bar, track

# A command that counts to 4, says something meanwhile, and ends
COUNTING = """
import argparse, logging
from gfl_edge.console import run_command
from gfl_edge.progress import track

def count(args):
    for number in track(range(4), "counting", 4):
        if number == 1:
            logging.getLogger("gfl_edge.test").info("meanwhile")
    return 0

run_command(argparse.ArgumentParser(), count, [])
"""


def on_a_terminal(code: str) -> str:
    """What a program writes to a terminal that does not say how large it is."""
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    subprocess.run([sys.executable, "-c", code], stderr=theirs, check=True, timeout=60)
    os.close(theirs)
    text = b""
    try:
        while part := os.read(ours, 10_000):
            text += part
    except OSError:  # what the end of a terminal is on Linux
        pass
    os.close(ours)
    return text.decode()


def test_a_terminal_has_one_line_and_messages_above_it() -> None:
    *before, last = on_a_terminal(COUNTING).rstrip().split("\n")
    assert len(before) == 1
    assert before[0].rstrip().endswith("\rmeanwhile")
    states = last.split("\r")
    assert all(state.startswith("counting: ") for state in states if state)
    assert "4/4" in states[-1]


def test_elsewhere_a_state_is_a_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LOG_SECONDS", 0.0)
    assert list(track("abc", "  counting", 3)) == ["a", "b", "c"]
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "\r" not in captured.err
    states = [line.partition(" [")[0] for line in captured.err.splitlines()]
    assert [state.split()[-1] for state in states] == ["0/3", "1/3", "2/3", "3/3", "3/3"]
    assert states[-1] == "  counting: 100%|##########| 3/3"


def test_lines_are_seconds_apart(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(list(track(range(1000), "counting", 1000))) == 1000
    assert len(capsys.readouterr().err.splitlines()) == 2  # the first and the last state


def test_what_was_done_before_does_not_count_for_the_rate(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("counting", 10, done=10) as bar:
        assert bar.n == 10
    assert "10/10" in (last := capsys.readouterr().err.splitlines()[-1])
    assert "?it/s" in last


def test_a_total_that_grows(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("counting", 0) as bar:
        bar.total = 5
        bar.update(5)
    assert "5/5" in capsys.readouterr().err.splitlines()[-1]


def test_nothing_is_drawn_where_it_is_not_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(track("ab", "counting", 2, enabled=False)) == ["a", "b"]
    assert capsys.readouterr().err == ""


def test_no_thread_is_started(capsys: pytest.CaptureFixture[str]) -> None:
    before = threading.active_count()
    with progress_bar("counting", 1):
        assert threading.active_count() == before
