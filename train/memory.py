"""Memory that PyTorch asked for in vain, in a sentence that says which settings ask for less."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from gfl_edge.errors import BackendError

ON_A_CPU = "DefaultCPUAllocator"  # in PyTorch's words, which are a plain RuntimeError there


@contextmanager
def enough_memory(advice: str) -> Iterator[None]:
    """Within, or around a function that it decorates: a device without room is a BackendError.

    Args:
        advice: what asks for less.
    """
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and ON_A_CPU not in str(error):
            raise
        said = str(error).strip().partition("\n")[0]
        raise BackendError(f"there is not enough memory for the network: {said.rstrip('.')}. {advice}") from error
