"""What the objectives have in common: maps and their cells, regions that are ignored, sums over all processes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from gfl_edge.ops import decode
from train.structures import Target


def level_hw(input_hw: tuple[int, int], strides: Sequence[int]) -> list[tuple[int, int]]:
    """Rows and columns of each level, as :func:`gfl_edge.ops.decode.points` has them."""
    return [(-(-input_hw[0] // stride), -(-input_hw[1] // stride)) for stride in strides]


def cell_grid(
    input_hw: tuple[int, int], strides: tuple[int, ...], point_offset: float, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Centers ``[A, 2]`` xy in pixels and strides ``[A, 1]`` of the cells of all levels."""
    centers, steps = decode.points(input_hw, strides, point_offset)
    return torch.from_numpy(centers).to(device), torch.from_numpy(steps).to(device)[:, None]


def check_maps(
    name: str, maps: Sequence[Tensor], num_images: int, channels: int, sizes: Sequence[tuple[int, int]]
) -> None:
    """Raise a ValueError unless there is one map ``[N, channels, rows, columns]`` per level, of these sizes."""
    expected = [(num_images, channels, *hw) for hw in sizes]
    found = [tuple(values.shape) for values in maps]
    if found != expected:
        raise ValueError(f"{name} {found}: expected {expected} from the targets, input_hw and the configuration")


def boxes_around(centers: Tensor, distances: Tensor) -> Tensor:
    """Boxes ``[..., 4]`` xyxy from centers ``[..., 2]`` and distances ``[..., 4]`` (left, top, right, bottom)."""
    return torch.cat((centers - distances[..., :2], centers + distances[..., 2:]), dim=-1)


def distances_to_edges(centers: Tensor, boxes: Tensor) -> Tensor:
    """From centers ``[..., 2]`` to the edges of boxes ``[..., 4]`` xyxy: left, top, right, bottom ``[..., 4]``."""
    return torch.cat((centers - boxes[..., :2], boxes[..., 2:] - centers), dim=-1)


def ignored_cells(targets: Sequence[Target], images: Tensor, cells: Tensor, centers: Tensor) -> Tensor | None:
    """The cells of all levels whose center lies in an ignored region and that no object claims.

    Whatever the assigner: a region says where objects are not told apart, not which of them there are, so that it is
    no candidate, and what it holds is not known to be background of any class.

    Args:
        targets: N.
        images, cells: int64 ``[P]``, those that objects claim.
        centers: of all cells ``[A, 2]``.

    Returns:
        bool ``[N, A]``; None: there are no regions.
    """
    if not any(target.ignored is not None and len(target.ignored) for target in targets):
        return None
    ignored = torch.stack([_inside_any(centers, target.ignored) for target in targets])
    ignored[images, cells] = False
    return ignored


def _inside_any(centers: Tensor, regions: Tensor | None) -> Tensor:
    """Whether each of the points ``[A, 2]`` lies inside one of the regions ``[m, 4]``: bool ``[A]``."""
    if regions is None:
        return torch.zeros_like(centers[:, 0], dtype=torch.bool)
    return inside(centers, regions.float()).any(dim=0)


def inside(points: Tensor, boxes: Tensor) -> Tensor:
    """Whether points ``[A, 2]`` lie inside boxes ``[m, 4]`` xyxy, not on their edges: bool ``[m, A]``."""
    (x, y), (left, top, right, bottom) = points.T, boxes.T[..., None]
    return (x > left) & (y > top) & (x < right) & (y < bottom)


def process_mean(values: Tensor) -> Tensor:
    """Sums over the batch, at least 1, per process of distributed training, so that all divide by the same numbers.

    The gradients are then averaged over the processes: they come out as if one process had had the whole batch.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return values.clamp(min=1)
    dist.all_reduce(values)
    return values.clamp(min=1) / dist.get_world_size()
