"""The maps that a detector's last layers give, found in whatever form its outputs have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gfl_edge.adopt.trace import Traced

Role = Literal["scores", "distributions", "unknown"]
LOG2_STRIDES = range(2, 8)  # 4 to 128 pixels


@dataclass(frozen=True)
class Piece:
    """Some channels of a map of one level.

    Attributes:
        tensor: the map, ``[1, C, h, w]``, ``[1, h * w, C]`` or ``[1, C, h * w]``.
        channels_last: of three dimensions, whether the channels come last.
        channels: first, and one after the last.
        total: channels of the map.
        hw: (height, width) of the map, in cells.
        role: what the graph takes it for.
        bins: per edge, where the graph takes a softmax of it; else 0.
        low, high: least and largest value that was seen.
        means: of each channel.
        is_map: whether the tensor has four dimensions, so that it cannot be anything else.
    """

    tensor: str
    channels_last: bool
    channels: tuple[int, int]
    total: int
    hw: tuple[int, int]
    role: Role
    bins: int
    low: float
    high: float
    means: tuple[float, ...]
    is_map: bool

    @property
    def width(self) -> int:
        """How many channels."""
        return self.channels[1] - self.channels[0]

    def part(self, start: int, stop: int) -> Piece:
        """Only the channels from ``start`` to before ``stop``, of the map."""
        first = self.channels[0]
        return replace(self, channels=(start, stop), means=self.means[start - first : stop - first])

    def rows(self, values: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """What tensors hold of it, float32 ``[cells, width]``, row by row of the map."""
        part = np.asarray(_part(values[self.tensor], self.channels, self.channels_last)[0], np.float32)
        return part if self.channels_last else part.reshape(self.width, -1).T

    @property
    def looks_like_probabilities(self) -> bool:
        """Whether every value that was seen lies within 0 and 1, which logits of a detector do not."""
        return self.low >= 0 and self.high <= 1


def grid_sizes(input_hw: tuple[int, int]) -> dict[tuple[int, int], list[int]]:
    """The strides, powers of two, by the size of the map that they make of an input."""
    found: dict[tuple[int, int], list[int]] = {}
    for power in LOG2_STRIDES:
        stride = 1 << power
        height, width = (-(-side // stride) for side in input_hw)
        found.setdefault((height, width), []).append(stride)
    return found


def pieces_of(
    traced: Traced,
    values: Mapping[str, NDArray[Any]],
    sizes: Iterable[tuple[int, int]],
    role: Role = "unknown",
    bins: int = 0,
) -> list[Piece]:
    """The pieces of maps that a traced tensor consists of; what is no map of a level is left out.

    Args:
        traced: see :class:`gfl_edge.adopt.trace.Tracer`.
        values: of the tensors, by name.
        sizes: that the maps of levels may have.
        role: of what no sigmoid was taken of; that of the rest is "scores".
        bins: per edge.
    """
    known, found = list(sizes), []
    flat = [array.ravel() for array in (traced.source, traced.sigmoid, traced.place)]
    for number in np.unique(flat[0]).tolist():
        name = traced.sources[number]
        shape = values[name].shape
        laid_out = _layout(shape, known)
        if laid_out is None:
            continue
        hw, channels_last = laid_out
        of_source = flat[0] == number
        for sigmoid in (False, True):
            own: Role = "scores" if sigmoid else role
            total = shape[2 if channels_last else 1]
            for channels in _channels(flat[2][of_source & (flat[1] == sigmoid)], shape, channels_last):
                part = _part(values[name], channels, channels_last)
                limits = float(part.min()), float(part.max())
                means = part.astype(np.float64).mean(axis=1 if channels_last else tuple(range(2, part.ndim)))[0]
                of_bins = 0 if sigmoid else bins
                found.append(
                    Piece(
                        *(name, channels_last, channels, total, hw, own, of_bins, *limits),
                        tuple(means.tolist()),
                        len(shape) == 4,
                    )
                )
    return found


def _layout(shape: tuple[int, ...], sizes: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], bool] | None:
    """Size of a map in cells, and whether its channels come last; None if it is of no level."""
    if len(shape) == 4 and shape[0] == 1 and shape[2:] in sizes:
        return (shape[2], shape[3]), False
    if len(shape) == 3 and shape[0] == 1 and not joins_levels(shape, sizes):
        fitting = [(hw, axis == 1) for axis in (1, 2) for hw in sizes if hw[0] * hw[1] == shape[axis]]
        return fitting[0] if len(fitting) == 1 else None
    return None


def joins_levels(shape: tuple[int, ...], sizes: Sequence[tuple[int, int]]) -> bool:
    """Whether a side is as long as some levels have cells together."""
    cells = [height * width for height, width in sizes]
    sums = {sum(cells[first:last]) for last in range(len(cells) + 1) for first in range(last - 1)}
    return not sums.isdisjoint(shape[1:])


def _channels(place: NDArray[np.int64], shape: tuple[int, ...], channels_last: bool) -> list[tuple[int, int]]:
    """The channels that elements belong to, of all cells, as first and one after the last of what ascends; or none."""
    if not place.size:
        return []
    count = shape[2] if channels_last else shape[1]
    cells = int(np.prod(shape)) // count
    channel, cell = (place % count, place // count) if channels_last else (place // cells, place % cells)
    at_first_cell = channel[cell == 0]
    if not at_first_cell.size or place.size != at_first_cell.size * cells or np.unique(place).size != place.size:
        return []
    ends = np.flatnonzero(np.diff(at_first_cell) != 1) + 1
    runs = [(int(run[0]), int(run[-1]) + 1) for run in np.split(at_first_cell, ends)]
    return runs if set(np.unique(channel).tolist()) == set(at_first_cell.tolist()) else []


def _part(array: NDArray[Any], channels: tuple[int, int], channels_last: bool) -> NDArray[Any]:
    start, stop = channels
    return array[..., start:stop] if channels_last else array[:, start:stop]
