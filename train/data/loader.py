"""Batches for the training loop and for evaluation."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from gfl_edge import optional
from gfl_edge.annotations.records import Annotations
from gfl_edge.errors import AnnotationError, InputError
from gfl_edge.ops.preprocess import Placement
from train.data.batches import BatchPlan, Draw, InputSizes, evaluation_batches
from train.data.config import DataConfig
from train.data.datasets import EvaluationImages, Example, TrainingImages
from train.data.workers import from_workers
from train.structures import Target

MAX_LOST = 20  # images that may go bad while a run lasts; more are no accident
MAX_LOST_SHARE = 0.25  # of a small set

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Batch:
    """Images of one size with their objects.

    Attributes:
        images: uint8 ``[N, H, W, 3]`` BGR, contiguous: what the exported graph takes, which normalizes on the device.
        targets: N; boxes in pixels of the input.
        image_ids: N, as in :meth:`gfl_edge.annotations.records.Annotations.to_coco`.
        placements: N in evaluation, ``to_frame`` takes boxes back to the image file; empty in training.
        lost: images that were to be used and could not be read, by id, and why. Such an image is not in the batch,
            unless it would be empty: then it is black and without objects.
    """

    images: Tensor
    targets: list[Target]
    image_ids: list[int]
    placements: list[Placement]
    lost: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.image_ids)

    def to(self, device: torch.device | str) -> Batch:
        """The batch on ``device``; copies from pinned memory do not block."""
        targets = [target.map(lambda values: values.to(device, non_blocking=True)) for target in self.targets]
        return replace(self, images=self.images.to(device, non_blocking=True), targets=targets)

    def pin_memory(self) -> Batch:
        """The batch in memory that a GPU reads by itself; torch's DataLoader calls this."""
        targets = [target.map(Tensor.pin_memory) for target in self.targets]
        return replace(self, images=self.images.pin_memory(), targets=targets)


def collate(examples: list[Example]) -> Batch:
    """One batch of examples of the same size, without those whose image could not be read."""
    lost = {image_id: reason for example in examples for image_id, reason in example.lost.items()}
    examples = [example for example in examples if not example.is_lost] or examples[:1]
    images = torch.from_numpy(np.stack([example.sample.image for example in examples]))
    targets = [
        Target(*map(torch.from_numpy, (example.sample.boxes, example.sample.labels, example.sample.ignored)))
        for example in examples
    ]
    placements = [example.placement for example in examples if example.placement is not None]
    return Batch(images, targets, [example.image_id for example in examples], placements, lost)


class TrainingLoader:
    """Augmented batches of one process, the same for a seed however many workers and processes there are.

    Args:
        config: of the data.
        annotations: checked, of the training set.
        batch_size: of all processes together.
        seed: of order, sizes and augmentation.
        workers: processes that prepare batches; 0 = prepared in this one.
        rank: of this process.
        world_size: number of processes.
        drop_last: leave out a last batch that is not full.
        persistent: keep the workers between epochs.
        pin_memory: for faster copies to a GPU.

    Raises:
        InputError: sizes, seed or batch do not fit each other.
    """

    def __init__(
        self,
        config: DataConfig,
        annotations: Annotations,
        batch_size: int,
        seed: int,
        *,
        workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = True,
        persistent: bool = True,
        pin_memory: bool = False,
    ) -> None:
        sizes = InputSizes(config.training_sizes, dynamic=config.short_long is not None)
        self.plan = BatchPlan(_frames_hw(annotations), batch_size, seed, sizes, rank, world_size, drop_last)
        dataset = TrainingImages(annotations, config.resize, config.augmentation, seed)
        self._cursor, self._losses = _Cursor(self.plan), _Losses(annotations)
        self._batches = _data_loader(dataset, self._cursor, workers, persistent, pin_memory)

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch."""
        return self.plan.steps_per_epoch

    def batches(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """The batches of ``epoch`` from ``first_step`` on, both counted from 0: exactly those of an unbroken run.

        An image that can no longer be read is left out with a warning.

        Raises:
            AnnotationError: so many images cannot be read that it is no accident.
        """
        self._cursor.epoch, self._cursor.first_step = epoch, first_step
        return self._losses.watch(iter(self._batches))


class _Cursor:
    """The plan's draws from a place that is set before each iteration; it stays in the main process."""

    def __init__(self, plan: BatchPlan) -> None:
        self.plan, self.epoch, self.first_step = plan, 0, 0

    def __iter__(self) -> Iterator[list[Draw]]:
        return self.plan.batches(self.epoch, self.first_step)

    def __len__(self) -> int:
        return max(0, self.plan.steps_per_epoch - self.first_step)


class EvaluationLoader:
    """Batches with every image once over all processes, not augmented; iterate over it as often as needed.

    Args:
        config: of the data; the input has ``input_hw``, or what ``short_long`` needs.
        annotations: checked.
        batch_size: of this process.
        workers: processes that prepare batches; 0 = prepared in this one.
        rank: of this process.
        world_size: number of processes.
        pin_memory: for faster copies to a GPU.
    """

    def __init__(
        self,
        config: DataConfig,
        annotations: Annotations,
        batch_size: int,
        *,
        workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
        pin_memory: bool = False,
    ) -> None:
        sizes = InputSizes((config.short_long or config.input_hw,), dynamic=config.short_long is not None)
        draws = evaluation_batches(_frames_hw(annotations), batch_size, sizes, rank, world_size)
        dataset, self._losses = EvaluationImages(annotations, config.resize), _Losses(annotations)
        self._batches = _data_loader(dataset, draws, workers, False, pin_memory)

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        return self._losses.watch(iter(self._batches))


class _Losses:
    """Images that were whole when the run started and can no longer be read."""

    def __init__(self, annotations: Annotations) -> None:
        self._origin, self._images = annotations.origin, len(annotations)
        self._lost: set[int] = set()

    def watch(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The batches; each lost image is warned of once, and too many are an error."""
        for batch in from_workers(batches):
            for image_id in batch.lost.keys() - self._lost:
                self._lost.add(image_id)
                if len(self._lost) > min(MAX_LOST, MAX_LOST_SHARE * self._images):
                    raise AnnotationError(
                        f"{batch.lost[image_id]}. {len(self._lost)} of {self._images} images went bad during the run: "
                        "is their folder as it was?"
                    )
                logger.warning("%s. The image is left out", batch.lost[image_id])
            yield batch


def _data_loader(
    dataset: Dataset[Example],
    batches: _Cursor | list[list[Draw]],
    workers: int,
    persistent: bool,
    pin_memory: bool,
) -> DataLoader[Example]:
    if workers < 0:
        raise InputError(f"workers {workers}: expected 0 or more")
    return DataLoader(
        dataset,
        batch_sampler=batches,  # of draws instead of indices, as a data set may take any key
        num_workers=workers,
        collate_fn=collate,
        pin_memory=pin_memory,
        persistent_workers=persistent and workers > 0,
        worker_init_fn=_one_thread,
        generator=torch.Generator(),  # or each epoch would draw from the loop's own, for workers that need no chance
    )


def _one_thread(_: int) -> None:
    """Keep a worker to one thread: OpenCV takes one per core otherwise, in every worker."""
    optional.load("cv2").setNumThreads(0)


def _frames_hw(annotations: Annotations) -> tuple[tuple[int, int], ...]:
    sizes = tuple(record.size_hw for record in annotations.records if record.size_hw is not None)
    if len(sizes) != len(annotations):
        raise InputError(
            f"{annotations.origin}: sizes of images are unknown. Pass annotations through check_annotations"
        )
    if annotations.foreign_classes:
        raise InputError(
            f"{annotations.origin}: boxes of unknown classes ({', '.join(annotations.foreign_classes[:5])}). "
            "Pass annotations through check_annotations"
        )
    return sizes
