"""ShuffleNetV2 without channel shuffles: their permutations go into the weights around them.

A shuffle only decides which channels later blocks read. Here the outputs of every branch are in the order in which
blocks read them: each is cut once, and every block joins what it reads. Compared with joining, interleaving and cutting
all channels in every block, OpenVINO takes 0.8 times as long for the whole of NanoDet-Plus-m-416.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from train.models.ghost_pan import GhostPAN
from train.models.nanodet import NanoDet
from train.models.shufflenet_v2 import ShuffleBlock, ShuffleNetV2

Channel = tuple[int, int]  # the branch that computes it, in the order of the forward pass, and its place there


class UnshuffledStage(nn.Sequential):
    """A stage of ShuffleNetV2 that takes and gives its channels in other orders.

    Args:
        stage: the original one, batch norms folded; its weights are reordered in place.
        order: for each channel of the input, its place in the input of the original stage.

    Attributes:
        order: the same of the output.
    """

    def __init__(self, stage: nn.Sequential, order: Sequence[int]) -> None:
        super().__init__(*stage)  # layers keep their names
        convs = [_convs(branch) for branch in self._branches()]
        read = _read_by_blocks(len(stage), convs[0][-1].out_channels)

        depthwise, pointwise = convs[0]
        _reorder_outputs(depthwise, order)
        _reorder_inputs(pointwise, order)
        _reorder_inputs(convs[1][0], order)
        for (pointwise, *_), channels in zip(convs[2:], read[:-1], strict=True):
            _reorder_inputs(pointwise, _by_branch(channels))
        self.pieces: list[dict[int, int]] = []  # of each branch: by reader, how many channels it reads
        for number, (*_, pointwise) in enumerate(convs):
            own = [[place for branch, place in channels if branch == number] for channels in read]
            _reorder_outputs(pointwise, [place for places in own for place in places])
            self.pieces.append({reader: len(places) for reader, places in enumerate(own) if places})
        self.order = _by_branch(read[-1])

    def forward(self, x: Tensor) -> Tensor:
        """``x`` float ``[N, C, H, W]`` -> ``[N, C', H / 2, W / 2]``."""
        read: list[list[Tensor]] = [[] for _ in self]
        for number, (branch, pieces) in enumerate(zip(self._branches(), self.pieces, strict=True)):
            output = branch(x if number < 2 else torch.cat(read[number - 2], dim=1))
            for reader, piece in zip(pieces, torch.split(output, list(pieces.values()), dim=1), strict=True):
                read[reader].append(piece)
        return torch.cat(read[-1], dim=1)

    def _branches(self) -> Iterator[nn.Module]:
        """In the order in which they compute: both of the first block, then the one of each other block."""
        for number, block in enumerate(self):
            assert isinstance(block, ShuffleBlock)
            yield from (block.branch1, block.branch2)[number > 0 :]


def unshuffle(detector: NanoDet) -> None:
    """Take the channel shuffles out of a detector whose batch norms are folded, in place and to the same effect."""
    backbone, neck = detector.backbone, detector.fpn
    assert isinstance(backbone, ShuffleNetV2)
    order: Sequence[int] = range(_convs(backbone.conv1)[0].out_channels)
    laterals = neck.reduce_layers if isinstance(neck, GhostPAN) else neck.lateral_convs
    for name, lateral in zip(("stage2", "stage3", "stage4"), laterals, strict=True):
        stage = UnshuffledStage(getattr(backbone, name), order)
        backbone.set_submodule(name, stage)
        order = stage.order
        for conv in _convs(lateral):
            _reorder_inputs(conv, order)


def _read_by_blocks(blocks: int, half: int) -> list[list[Channel]]:
    """The channels that every block after the first changes in the original stage, then those of its output."""
    branches = [[(number, place) for place in range(half)] for number in range(blocks + 1)]
    read, state = [], _interleaved(*branches[:2])
    for branch in branches[2:]:
        kept, changed = state[:half], state[half:]
        read.append(changed)
        state = _interleaved(kept, branch)
    return [*read, state]


def _interleaved(first: list[Channel], second: list[Channel]) -> list[Channel]:
    return [channel for pair in zip(first, second, strict=True) for channel in pair]


def _by_branch(channels: list[Channel]) -> list[int]:
    """Their places when those of each branch come together, as they are joined."""
    return sorted(range(len(channels)), key=lambda place: channels[place][0])


def _convs(module: nn.Module) -> list[nn.Conv2d]:
    """In the order in which they compute."""
    return [part for part in module.modules() if isinstance(part, nn.Conv2d)]


def _reorder_inputs(conv: nn.Conv2d, order: Sequence[int]) -> None:
    conv.weight = nn.Parameter(conv.weight.detach()[:, list(order)])


def _reorder_outputs(conv: nn.Conv2d, order: Sequence[int]) -> None:
    assert conv.bias is not None
    conv.weight = nn.Parameter(conv.weight.detach()[list(order)])
    conv.bias = nn.Parameter(conv.bias.detach()[list(order)])
