"""What all detectors of this project have in common."""

from __future__ import annotations

from abc import abstractmethod
from typing import Protocol

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from train.models.traits import Family, Regression
from train.structures import Outputs


class DetectorConfig(Protocol):
    """What everything around a network needs to know of it."""

    @property
    def family(self) -> Family: ...

    @property
    def num_classes(self) -> int: ...

    @property
    def reg_max(self) -> int:
        """The distribution of an edge has ``reg_max + 1`` bins, where it is one."""
        ...

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels of the input per cell of each output map."""
        ...

    @property
    def regression(self) -> Regression: ...


class Detector(nn.Module):
    """A network without decode.

    ``forward`` takes float ``[N, 3, H, W]``, normalized, H and W multiples of 32, and returns
    ``(cls_logits, reg_logits)``: lists with one map per stride, ``[N, num_classes, H_i, W_i]`` whose sigmoid is the
    score, and ``[N, 4 * (reg_max + 1), H_i, W_i]`` (left, top, right, bottom; each ``reg_max + 1`` bins), or, unless
    ``regression`` is "distribution", distances in strides, ``[N, 4, H_i, W_i]``.
    ``forward_train`` returns everything that a loss may want.
    """

    config: DetectorConfig
    backbone: nn.Module

    def __init__(self) -> None:
        super().__init__()
        self._frozen: list[nn.Module] = []
        self._norm_eval = False

    @abstractmethod
    def forward(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """See the class."""

    @abstractmethod
    def forward_train(self, images: Tensor) -> Outputs:
        """Normalized float ``[N, 3, H, W]`` -> logits of all levels."""

    @abstractmethod
    def backbone_stages(self) -> list[list[nn.Module]]:
        """The stem and the stages of the backbone, from the input on."""

    def freeze(self, stages: int = 1, norm_eval: bool = True) -> None:
        """Fine-tune from ImageNet weights as mmdetection does.

        Args:
            stages: the stem and so many stages get no gradients and stay in eval mode; -1 freezes nothing.
            norm_eval: batch norms of the backbone use their stored statistics; small batches have poor ones.

        Raises:
            ValueError: the backbone has fewer stages.
        """
        available = self.backbone_stages()
        if not -1 <= stages < len(available):
            raise ValueError(f"stages {stages}: expected -1 to {len(available) - 1}")
        self._frozen = [module for stage in available[: stages + 1] for module in stage]
        self._norm_eval = norm_eval
        for module in self.backbone.modules():
            module.requires_grad_(True)
        for module in self._frozen:
            module.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Detector:
        """Switch between training and eval mode; what is frozen stays in eval mode."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        if self._norm_eval:
            for module in self.backbone.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self


def swap_red_and_blue(model: nn.Module) -> None:
    """Turn the first convolution of a network over, in place: it then takes BGR where it took RGB, and the reverse."""
    first = next(m for m in model.modules() if isinstance(m, nn.Conv2d) and m.in_channels == 3)
    first.weight = nn.Parameter(first.weight.detach().flip(1))
