"""The result of an assignment, and the order in which it is decided."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

MAX_INDEX = 2**31 - 1


@dataclass(frozen=True)
class Positives:
    """The cells that learn an object; all others are background. One row per cell, by image and then by cell.

    Attributes:
        images: int64 ``[P]``, index in the batch.
        cells: int64 ``[P]``, index over the cells of all levels, from fine to coarse and row by row.
        objects: int64 ``[P]``, row in the boxes of all images, one image after the other.
        ious: float32 ``[P]``, of the object's box and what was assigned to it: an anchor or a predicted box.
    """

    images: Tensor
    cells: Tensor
    objects: Tensor
    ious: Tensor


def sort_keys(values: Tensor, indices: Tensor) -> Tensor:
    """int64 keys that order by ``values`` (float32) and, where these are equal, by ``indices`` (0 to 2**31 - 1).

    Sorting, top-k and scatter-max leave open which of equal values comes first; of these keys no two are equal, so
    that an assignment is the same on every device and in every run. The two arguments broadcast.
    """
    bits = values.float().view(torch.int32).long()
    # As integers, the bits of positive floats are in order already and those of negative ones in reverse
    ordered = torch.where(bits < 0, bits ^ MAX_INDEX, bits)
    return (ordered << 32) | indices
