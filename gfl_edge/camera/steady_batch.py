"""How many frames of several sources run at once."""

from __future__ import annotations

PATIENCE = 50  # batches that were smaller than the size, one after the other, before it shrinks


class SteadyBatch:
    """A batch size that grows at once and shrinks slowly.

    TensorRT throws a CUDA graph away when the batch size changes, and capturing another costs more than some frames
    computed in vain. So a batch that is a bit smaller than those before is filled up, and the size shrinks only when
    ``PATIENCE`` batches in a row could have been smaller.
    """

    def __init__(self) -> None:
        self._size = self._largest = self._smaller = 0

    def size(self, waiting: int) -> int:
        """The size to run ``waiting`` frames at: at least as many."""
        if waiting >= self._size:
            self._size, self._largest, self._smaller = waiting, 0, 0
            return waiting
        self._largest, self._smaller = max(self._largest, waiting), self._smaller + 1
        if self._smaller == PATIENCE:
            self._size, self._largest, self._smaller = self._largest, 0, 0
        return self._size
