"""What a file that decodes boxes shows of them: where the points of cells lie.

Distributions give the distances from a point to four edges. If a tensor holds the edges, the difference is the point.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gfl_edge.ops import decode
from gfl_edge.ops.boxes import Floats

TOLERANCE = 0.01  # strides
MIN_SHARE = 0.25  # of the sides of boxes; others may have been clipped
MAX_OFFSET = 1.0


def point_offset_of(
    distributions: Floats, tensors: Iterable[NDArray[Any]], input_hw: tuple[int, int], strides: tuple[int, ...]
) -> float | None:
    """Where points lie in their cells, in strides, if any of the tensors holds the boxes.

    Args:
        distributions: logits of all levels ``[A, 4 * (reg_max + 1)]``, by ascending stride, row by row.
        tensors: that may hold boxes of all levels or of one, in pixels, in strides or in parts of the input, by edges
            or by centers and sides.
        input_hw: (height, width) in pixels.
        strides: ascending.
    """
    origins, cell_strides = decode.points(input_hw, strides, 0.0)
    distances = decode.integral(distributions) * cell_strides[:, None]
    parts = [np.arange(len(distances)), *(np.flatnonzero(cell_strides == stride) for stride in strides)]
    for tensor in tensors:
        for rows in parts:
            if tensor.size == 4 * len(rows) and tensor.ndim >= 2 and 4 in tensor.shape[-2:]:
                for edges in _as_edges(tensor.astype(np.float32), input_hw, cell_strides[rows]):
                    found = _offset(edges, distances[rows], origins[rows], cell_strides[rows])
                    if found is not None:
                        return found
    return None


def _as_edges(boxes: Floats, input_hw: tuple[int, int], strides: Floats) -> Iterator[Floats]:
    """The four numbers of each box as left, top, right and bottom in pixels, in every way that they can be meant."""
    four = boxes if boxes.shape[-1] == 4 else boxes.swapaxes(-1, -2)
    four = four.reshape(-1, 4)
    sides = np.asarray([input_hw[1], input_hw[0]] * 2, np.float32)
    for scaled in (four, four * sides, four * strides[:, None]):
        yield scaled
        yield scaled[:, [1, 0, 3, 2]]
        half = scaled[:, 2:] / 2
        yield np.concatenate((scaled[:, :2] - half, scaled[:, :2] + half), axis=1)


def _offset(edges: Floats, distances: Floats, origins: Floats, strides: Floats) -> float | None:
    near, far = edges[:, :2] + distances[:, :2], edges[:, 2:] - distances[:, 2:]
    offsets = (near + far) / 2 - origins
    offsets /= strides[:, None]
    whole = np.abs(near - far) < TOLERANCE * strides[:, None]
    if whole.mean() < MIN_SHARE:
        return None
    found = float(np.median(offsets[whole]))
    agree = np.abs(offsets[whole] - found).max() < TOLERANCE
    return round(found, 2) + 0.0 if agree and abs(found) <= MAX_OFFSET else None
