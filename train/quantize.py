"""Fake quantization: fine-tuning a network that rounds as its INT8 file will.

An INT8 file has Q/DQ pairs around its convolutions, into which batch norms are folded (:mod:`calib.placement`). So the
network that is fine-tuned is folded, too, and rounds the inputs and weights of the same convolutions: weights per
channel by their present magnitude, inputs by ranges found once, from the first batches and by the methods of
:mod:`calib.histogram`. Gradients pass the rounding as if it were not there, except where values are clipped.

What is learned is kept as an ordinary float checkpoint. Exporting it and calibrating the exported file, which finds the
ranges again, gives the INT8 file. Its batch norms are identities; training that goes on from it without fake
quantization unfolds them first (:mod:`train.unfolding`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from calib.histogram import STEPS, Histogram, Method
from gfl_edge.errors import CalibrationError, InputError
from train.models.batch_norm import unfuse_batch_norm
from train.models.build import Network, build_network
from train.models.deform_conv import DeformConv2d

# Stay float: the final ones, and those that no exported file has
FINAL = re.compile(r"(head\.gfl_cls|bbox_head\.(gfl_cls|gfl_reg|reg_conf|atss_\w+)|meta_selection)\b")
INPUT_ROUNDING = "input_rounding"  # of a convolution
ORIGINAL = ".parametrizations.weight.original"  # in the keys of a state dict: the weight, before it is rounded


class InputRounding(nn.Module):
    """Rounds and clips as INT8 does, symmetric, with one scale.

    Args:
        largest: magnitude at which values are clipped.
    """

    largest: Tensor

    def __init__(self, largest: Tensor) -> None:
        super().__init__()
        self.register_buffer("largest", largest)

    def forward(self, x: Tensor) -> Tensor:
        """Any shape, and the same."""
        return _rounded(x, self.largest / STEPS)


class WeightRounding(nn.Module):
    """Rounds the weights of a convolution as INT8 does, with a scale per output channel."""

    def forward(self, weight: Tensor) -> Tensor:
        """``[O, I, H, W]``, and the same."""
        return _rounded(weight, weight.detach().abs().amax(dim=(1, 2, 3), keepdim=True) / STEPS)


def _rounded(values: Tensor, scale: Tensor) -> Tensor:
    """In steps of ``scale``, as float32 computes them; where that is 0, values are 0."""
    steps = values.float() / scale.clamp(min=torch.finfo(torch.float32).tiny)
    clipped = steps.clamp(-STEPS - 1, STEPS)
    rounded = clipped + (clipped.round() - clipped).detach()
    return (rounded * scale).to(values.dtype)


def int8_convolutions(detector: nn.Module) -> dict[str, nn.Conv2d]:
    """The convolutions of ``detector`` that get Q/DQ pairs in its INT8 file, by name: all but the head's final ones."""
    return {
        name: module
        for name, module in detector.named_modules()
        if isinstance(module, nn.Conv2d) and not FINAL.match(name)
    }


def fake_quantize(network: nn.Module, detector: nn.Module, batches: Iterable[Tensor], method: Method) -> int:
    """Make the convolutions of a folded network round as in INT8, in place.

    Args:
        network: takes a batch; ``detector`` is a part of it.
        detector: whose batch norms are folded, on its device.
        batches: from which the ranges of activations are found, on the same device.
        method: by which they are.

    Returns:
        The number of these convolutions.

    Raises:
        CalibrationError: an activation is not finite.
        InputError: deformable convolutions.
    """
    if any(isinstance(module, DeformConv2d) for module in detector.modules()):
        raise InputError("quantize.enabled: deformable convolutions cannot be fake-quantized; train without quantize")
    convolutions = int8_convolutions(detector)
    for name, largest in observe(network, convolutions, batches, method).items():
        conv = convolutions[name]
        conv.add_module(INPUT_ROUNDING, InputRounding(torch.tensor(largest, device=conv.weight.device)))
        conv.register_forward_pre_hook(_round_input)
        # Weights have new ranges in each step, as calibrating the exported file takes them from the final ones
        parametrize.register_parametrization(conv, "weight", WeightRounding())
    return len(convolutions)


def _round_input(conv: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """What a convolution is given, rounded; finds the rounding in ``conv``, which may be a copy."""
    return (conv.get_submodule(INPUT_ROUNDING)(inputs[0]), *inputs[1:])


def observe(
    network: nn.Module, convolutions: Mapping[str, nn.Conv2d], batches: Iterable[Tensor], method: Method
) -> dict[str, float]:
    """The magnitudes at which the inputs of ``convolutions`` are to be clipped, by the same names.

    Args:
        network: run in eval mode, and left in the mode it was in.
        convolutions: parts of it.
        batches: that it takes.
        method: of :class:`calib.histogram.Histogram`.

    Raises:
        CalibrationError: an activation is not finite.
    """
    histograms = {name: Histogram() for name in convolutions}

    def count_into(name: str) -> Any:
        def count(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            values = inputs[0].detach().flatten().float()
            if not values.isfinite().all():
                raise CalibrationError(f"the input of {name} is not finite. Train the network without quantize first")
            histograms[name].add(values.cpu().numpy())

        return count

    hooks = [conv.register_forward_pre_hook(count_into(name)) for name, conv in convolutions.items()]
    try:
        with _eval_mode(network), torch.no_grad():
            for batch in batches:
                network(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: histogram.range(method) for name, histogram in histograms.items()}


def float_state(network: Network) -> dict[str, Tensor]:
    """The weights of a folded network that rounds as the state dict of a float one with batch norms."""
    with torch.device("meta"):
        plain = build_network(network.config)
    state = {key.replace(ORIGINAL, ".weight"): value for key, value in network.state_dict().items()}
    return unfuse_batch_norm({key: value for key, value in state.items() if f".{INPUT_ROUNDING}." not in key}, plain)


@contextmanager
def _eval_mode(network: nn.Module) -> Iterator[None]:
    training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(training)
