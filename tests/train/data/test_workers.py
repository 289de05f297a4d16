"""A process that prepares batches and ends is a sentence."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from gfl_edge.errors import ImageError, SourceError
from train.data.workers import WorkerError, all_there, from_workers

GONE = "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's workers are out of"


class Failing(Dataset[int]):
    """Numbers, until something is called in the other process."""

    def __init__(self, fail):
        self._fail = fail

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return self._fail() if index == 4 else index


def killed():
    os.kill(os.getpid(), signal.SIGKILL)


def too_many_files():
    raise SourceError("a.jpg cannot be read (Too many open files). Let the command have more files open (ulimit -n)")


def no_memory():
    raise MemoryError("Unable to allocate 8 GiB")


def batches(fail, workers=1):
    return from_workers(iter(DataLoader(Failing(fail), batch_size=2, num_workers=workers)))


def test_a_process_that_is_killed():
    found = batches(killed)
    with pytest.raises(WorkerError, match=r"is gone \(.*--shm-size"):
        list(found)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_ours_is_what_it_was(workers):
    with pytest.raises(SourceError) as caught:
        list(batches(too_many_files, workers))
    assert str(caught.value).startswith("a.jpg cannot be read (Too many open files). Let the command")


def test_memory_that_is_missing_there_and_here():
    with pytest.raises(WorkerError, match=r"has no memory \(Unable to allocate 8 GiB\)\. Such a process"):
        list(batches(no_memory))
    with pytest.raises(MemoryError, match=r"^Unable to allocate 8 GiB$"):
        list(batches(no_memory, workers=0))


def raising(error) -> Iterator[int]:
    yield 0
    raise error


@pytest.mark.parametrize(
    "text",
    [
        "unable to mmap 64 bytes from file </torch_1>: Cannot allocate memory (12)",
        "unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)",
        "received 0 items of ancdata",
        "Caught RuntimeError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
        '  File "x.py", line 1\nRuntimeError: unable to write to file </torch_1>: shm is full',
    ],
)
def test_what_runs_out_between_processes(text):
    with pytest.raises(WorkerError, match="no batch comes from its process") as caught:
        list(from_workers(raising(RuntimeError(text))))
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize("error", [ConnectionResetError(104, "reset"), EOFError(), RuntimeError(GONE)])
def test_a_process_that_is_gone_however_that_is_noticed(error):
    with pytest.raises(
        WorkerError, match=r"a process that prepares batches is gone \((ConnectionReset|EOF|DataLoader w)"
    ):
        list(from_workers(raising(error)))


def test_a_process_that_is_gone_while_something_else_is_done():
    with (
        pytest.raises(WorkerError, match=r"is gone \(DataLoader worker \(pid 7\) is killed by signal: Bus"),
        all_there(),
    ):
        raise RuntimeError(GONE)
    with pytest.raises(RuntimeError, match=r"^other$"), all_there():
        raise RuntimeError("other")


@pytest.mark.parametrize("error", [RuntimeError("CUDA error"), ValueError("x"), ImageError("a.jpg", "is cut")])
def test_other_errors_are_left_alone(error):
    with pytest.raises(type(error)) as caught:
        list(from_workers(raising(error)))
    assert str(caught.value) == str(error)


def test_batches_come_as_they_are():
    assert torch.cat(list(from_workers(iter(DataLoader(Failing(lambda: 4), batch_size=2))))).tolist() == list(range(8))
