"""Which images make up which batch: known only from seed, epoch and step, whatever the number of processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from gfl_edge.errors import InputError
from gfl_edge.ops.preprocess import fitted_input

# First number of a seed, so that the streams of chance are apart. It comes first as zeros at the end change nothing
SHUFFLE, SIZE, AUGMENT = 1, 2, 3


class Draw(NamedTuple):
    """One image of a batch, with all that its augmentation depends on.

    Attributes:
        epoch: from 0.
        image: its index.
        input_hw: height and width of the batch, pixels.
        short_long: what the image's sides may have at most; None: as much as fits.
    """

    epoch: int
    image: int
    input_hw: tuple[int, int]
    short_long: tuple[int, int] | None = None


@dataclass(frozen=True)
class InputSizes:
    """The sizes that inputs may have.

    Attributes:
        sizes: (height, width); with ``dynamic``, (short, long).
        dynamic: the input is as large as the images of the batch need at most (short, long) pixels, see
            :func:`gfl_edge.ops.preprocess.input_size`.
    """

    sizes: tuple[tuple[int, int], ...]
    dynamic: bool = False

    def resolve(
        self, size: tuple[int, int], frames_hw: Sequence[tuple[int, int]]
    ) -> tuple[tuple[int, int], tuple[int, int] | None]:
        """``input_hw`` and ``short_long`` of a batch of frames at one of the sizes."""
        if not self.dynamic:
            return size, None
        needed = [fitted_input(frame_hw, size) for frame_hw in frames_hw]
        return (max(height for height, _ in needed), max(width for _, width in needed)), size


@dataclass(frozen=True)
class BatchPlan:
    """The batches of one process out of ``world_size``.

    An epoch is a permutation of the images, drawn from seed and epoch and cut into batches. Each process takes its
    stretch of every batch, so that the stretches, in order of rank, are the batch of a single process. Where sizes are
    dynamic, landscapes and portraits go into separate batches as far as possible, which saves padding.

    Attributes:
        frames_hw: (height, width) of every image.
        batch_size: of all processes together.
        seed: not negative.
        sizes: one is drawn for each batch, from seed, epoch and step.
        rank: of this process, from 0.
        world_size: number of processes, at most ``batch_size``. Where it does not divide that, stretches differ by an
            image.
        drop_last: leave out the images that are too few for a last batch; otherwise it is smaller.
    """

    frames_hw: tuple[tuple[int, int], ...]
    batch_size: int
    seed: int
    sizes: InputSizes
    rank: int = 0
    world_size: int = 1
    drop_last: bool = True

    def __post_init__(self) -> None:
        images = len(self.frames_hw)
        if self.seed < 0:
            raise InputError(f"seed {self.seed}: expected 0 or more")
        if not 0 <= self.rank < self.world_size:
            raise InputError(f"rank {self.rank} of {self.world_size} processes: expected 0..{self.world_size - 1}")
        if self.batch_size < self.world_size:
            raise InputError(
                f"batch size {self.batch_size} of all processes together: expected an image at least for each of "
                f"{self.world_size}"
            )
        if self.drop_last and images < self.batch_size:
            raise InputError(f"batch size {self.batch_size}, but only {images} images: expected at most as many")
        if not self.drop_last and 0 < self.images_left < self.world_size:
            raise InputError(
                f"the last batch of {images} images has {self.images_left}, too few for {self.world_size} processes. "
                "Leave it out (drop_last) or choose another batch size"
            )

    @property
    def images_left(self) -> int:
        """Images of the last batch, where it is not full."""
        return len(self.frames_hw) % self.batch_size

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch, the same for each process."""
        return len(self.frames_hw) // self.batch_size + (not self.drop_last and self.images_left > 0)

    def batches(self, epoch: int, first_step: int = 0) -> Iterator[list[Draw]]:
        """This process's stretches of the batches of ``epoch``, both counted from 0, from ``first_step`` on."""
        order = self._order(epoch)
        for step in range(first_step, self.steps_per_epoch):
            whole = order[step * self.batch_size : (step + 1) * self.batch_size]
            choice = np.random.default_rng([SIZE, self.seed, epoch, step]).integers(len(self.sizes.sizes))
            # of the whole batch, so that each process pads to the same input
            frames = [self.frames_hw[index] for index in whole]
            input_hw, short_long = self.sizes.resolve(self.sizes.sizes[choice], frames)
            mine = np.array_split(whole, self.world_size)[self.rank].tolist()
            yield [Draw(epoch, index, input_hw, short_long) for index in mine]

    def _order(self, epoch: int) -> list[int]:
        """The images of an epoch in order."""
        order: list[int] = np.random.default_rng([SHUFFLE, self.seed, epoch]).permutation(len(self.frames_hw)).tolist()
        if not self.sizes.dynamic:
            return order
        grouped: list[int] = []
        waiting: tuple[list[int], list[int]] = [], []
        for index in order:
            height, width = self.frames_hw[index]
            group = waiting[height > width]
            group.append(index)
            if len(group) == self.batch_size:
                grouped += group
                group.clear()
        return grouped + waiting[0] + waiting[1]


def evaluation_batches(
    frames_hw: Sequence[tuple[int, int]], batch_size: int, sizes: InputSizes, rank: int = 0, world_size: int = 1
) -> list[list[Draw]]:
    """Batches that hold every image once over all processes, at the first of ``sizes``.

    Where sizes are dynamic, images that need the same input go together, so that each gets the input of the run time.

    Args:
        frames_hw: (height, width) of every image.
        batch_size: of this process.
        sizes: of which the first is taken.
        rank: of this process.
        world_size: number of processes.
    """
    if batch_size < 1 or not 0 <= rank < world_size:
        raise InputError(f"batch size {batch_size}, rank {rank} of {world_size}: expected 1 or more, and rank below")
    groups: dict[tuple[tuple[int, int], tuple[int, int] | None], list[int]] = {}
    for index in np.array_split(np.arange(len(frames_hw)), world_size)[rank].tolist():
        groups.setdefault(sizes.resolve(sizes.sizes[0], [frames_hw[index]]), []).append(index)
    return [
        [Draw(0, index, input_hw, short_long) for index in group[start : start + batch_size]]
        for (input_hw, short_long), group in groups.items()
        for start in range(0, len(group), batch_size)
    ]
