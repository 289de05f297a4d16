"""Commands of the project in processes of their own."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

CHECKOUT = Path(__file__).resolve().parents[2]
MAX_SECONDS = 300.0  # of a command


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        status: of its exit; negative: the signal that ended it.
        stdout: what it printed.
        stderr: its messages.
    """

    status: int
    stdout: str
    stderr: str

    @classmethod
    def of(
        cls,
        words: Sequence[str],
        folder: Path,
        before: Callable[[], None] | None = None,
        stdout: int | TextIO = subprocess.PIPE,
        changes: Mapping[str, str | None] | None = None,
    ) -> Ended:
        """Run ``words`` to their end, see :func:`run`."""
        done = subprocess.run(
            words,
            cwd=folder,
            env=environment(folder, changes),
            preexec_fn=before,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            timeout=MAX_SECONDS,
            check=False,
        )
        return cls(done.returncode, done.stdout or "", done.stderr)

    def check_one_sentence(self, *statuses: int) -> None:
        """Raise AssertionError unless it failed as promised: one line that says why, no traceback, and status 1, or one
        of ``statuses``.
        """
        assert self.status in (statuses or (1,)), f"status {self.status}: {self.stderr[-500:]}"
        errors = [line for line in self.stderr.splitlines() if "error:" in line]
        assert len(errors) == 1, f"not one sentence: {self.stderr[-500:]}"
        assert "Traceback" not in self.stderr, f"a traceback: {self.stderr[-500:]}"

    def check_done_or_one_sentence(self) -> None:
        """Raise AssertionError unless it did what it was to do, or failed as promised."""
        if self.status != 0:
            self.check_one_sentence()
        assert "Traceback" not in self.stderr, f"a traceback: {self.stderr[-500:]}"


def words_of(command: Sequence[str | Path]) -> list[str]:
    """``gfl-edge`` and the scripts of the checkout as words that run them with this Python."""
    name, *rest = map(str, command)
    program = ["-m", "gfl_edge"] if name == "gfl-edge" else [str(CHECKOUT / name)]
    return [sys.executable, *program, *rest]


def run(
    command: Sequence[str | Path],
    folder: Path,
    before: Callable[[], None] | None = None,
    changes: Mapping[str, str | None] | None = None,
) -> Ended:
    """Run a command to its end, in ``folder``.

    Args:
        command: its words.
        folder: its current folder.
        before: called in its process, to set limits.
        changes: of its environment; None: without that variable.
    """
    return Ended.of(words_of(command), folder, before, changes=changes)


def environment(folder: Path, changes: Mapping[str, str | None] | None = None) -> dict[str, str]:
    """Of the commands: the checkout's packages, one thread, a cache of their own, and ``changes``."""
    variables = {
        **os.environ,
        "PYTHONPATH": str(CHECKOUT),
        "OMP_NUM_THREADS": "1",
        "GFL_EDGE_CACHE": str(folder / "cache"),
        **(changes or {}),
    }
    return {name: value for name, value in variables.items() if value is not None}


def heed_signals() -> None:
    """For a process that is started: a shell starts what runs in the background deaf to Ctrl-C, nohup to SIGHUP."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def disk_of(size_bytes: int) -> Callable[[], None]:
    """For :func:`run`: no file of the command grows beyond so many bytes, which it sees as a write that fails."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a full disk sends no signal
        resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, size_bytes))

    return limit


def limited(kind: int, most: int) -> Callable[[], None]:
    """For :func:`run`: the command may have no more of a kind of resource, such as ``resource.RLIMIT_NOFILE``."""
    return lambda: resource.setrlimit(kind, (most, most))
