"""What ends the processes that prepare batches, in a sentence instead of PyTorch's traceback within a traceback."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from gfl_edge.errors import GflEdgeError

T = TypeVar("T")

# What PyTorch says: of a process that is gone, and of memory or files that ran out between it and the training
_GONE = re.compile(r"DataLoader worker \(pid[^)]*\)[^.]*")
_SCARCE = re.compile(r"shared memory|shm|ancdata|Too many open files|Cannot allocate memory")
ADVICE = (
    "Such a process needs memory of its own and room in /dev/shm, of which containers have little (docker run "
    "--shm-size=2g or --ipc=host), and open files (ulimit -n). Give more of it, or set train.workers lower, and go on "
    "with --resume"
)


class WorkerError(GflEdgeError):
    """A process that prepares batches ended, or cannot hand them over."""


def from_workers(batches: Iterator[T]) -> Iterator[T]:
    """The batches of a DataLoader.

    Raises:
        WorkerError: a process that prepares them was killed, or there is no memory for it or to hand them over.
        GflEdgeError: of such a process, as it was raised there.
        MemoryError: there is none in this process.
    """
    try:
        with all_there():
            yield from batches
    except GflEdgeError as error:
        if (said := _said(error)) == str(error):
            raise
        raise type(error)(said) from error
    except MemoryError as error:
        if (said := _said(error)) == str(error):
            raise
        raise WorkerError(
            f"a process that prepares batches has no memory ({said or 'it says no more'}). {ADVICE}"
        ) from error
    except (ConnectionError, EOFError) as error:  # it ended while it handed over
        raise WorkerError(f"a process that prepares batches is gone ({type(error).__name__}). {ADVICE}") from error
    except RuntimeError as error:
        if _SCARCE.search(str(error)) is None:
            raise
        raise WorkerError(f"no batch comes from its process ({_said(error)}). {ADVICE}") from error


@contextmanager
def all_there() -> Iterator[None]:
    """Within, none of these processes ends; else a WorkerError, wherever this process is when PyTorch notices."""
    try:
        yield
    except RuntimeError as error:
        if (gone := _GONE.search(str(error))) is None:
            raise
        raise WorkerError(f"a process that prepares batches is gone ({gone[0].strip()}). {ADVICE}") from error


def _said(error: Exception) -> str:
    """The words of an error, which PyTorch puts at the end of the other process's traceback."""
    text = str(error.args[0]) if error.args else ""
    if not text.startswith("Caught "):
        return str(error)
    return text.rstrip().rpartition("\n")[2].partition(": ")[2]
