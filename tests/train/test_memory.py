"""A device without room is a sentence that says which settings ask for less."""

from __future__ import annotations

import pytest
import torch

from gfl_edge.errors import BackendError
from train.memory import enough_memory

HUGE = 1 << 60  # bytes: no machine has them


def test_what_pytorch_says_on_a_cpu():
    expected = r"there is not enough memory for the network: .*allocate.*\. Take less$"
    with pytest.raises(BackendError, match=expected), enough_memory("Take less"):
        torch.empty(HUGE, dtype=torch.uint8)


def test_what_pytorch_says_on_a_gpu():
    @enough_memory("Take less")
    def step():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nGPU 0 has")

    with pytest.raises(BackendError, match=r"network: CUDA out of memory\. Tried to allocate 2 GiB\. Take less$"):
        step()


def test_other_errors_are_left_alone():
    with pytest.raises(RuntimeError, match="shapes differ") as caught, enough_memory("Take less"):
        raise RuntimeError("shapes differ")
    assert not isinstance(caught.value, BackendError)
