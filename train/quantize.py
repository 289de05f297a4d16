"""Fake quantization: fine-tuning a network that rounds as its INT8 file will.

An INT8 file has Q/DQ pairs around its convolutions, into which batch norms are folded (:mod:`calib.placement`). So the
network that is fine-tuned is folded, too, and NVIDIA Model Optimizer's quantizers round the inputs and weights of the
same convolutions: weights per channel by their present magnitude, inputs by ranges found once, from the first batches
and by the methods of :mod:`calib.histogram`. Gradients pass the rounding as if it were not there.

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

from calib.histogram import Histogram, Method
from gfl_edge import optional
from gfl_edge.errors import CalibrationError, InputError
from train.models.batch_norm import unfuse_batch_norm
from train.models.build import Network, build_network
from train.models.deform_conv import DeformConv2d
from train.models.efficientnet_lite import SamePadConv

FINAL = re.compile(r"(head\.gfl_cls|bbox_head\.(gfl_cls|gfl_reg|reg_conf|atss_centerness))\b")  # stay float
QUANTIZER = re.compile(r"\.(input|weight|output)_quantizer\.")  # in the keys of a state dict
MIN_CHANNELS, CHANNEL_STEP, MIN_KERNEL = 16, 8, 3  # of TensorRT's INT8 kernels


def int8_convolutions(detector: nn.Module) -> dict[str, nn.Conv2d]:
    """The convolutions of ``detector`` that get Q/DQ pairs in its INT8 file, by name.

    These are all but the head's final ones and those that Model Optimizer leaves to float because TensorRT has no good
    INT8 kernel for their shapes (modelopt/onnx/quantization/graph_utils.py, find_nodes_from_convs_to_exclude).
    """
    found = {}
    for name, module in detector.named_modules():
        if not isinstance(module, nn.Conv2d) or FINAL.match(name):
            continue
        outputs, inputs = module.weight.shape[:2]  # inputs of a group
        if module.groups > 1:
            fits = outputs % CHANNEL_STEP == 0 and min(module.kernel_size) >= MIN_KERNEL
        else:
            aligned = outputs % CHANNEL_STEP == 0 or inputs % CHANNEL_STEP == 0
            fits = aligned and max(outputs, inputs) >= MIN_CHANNELS
        if fits or min(outputs, inputs) >= MIN_CHANNELS:
            found[name] = module
    return found


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
        MissingDependencyError: Model Optimizer is not installed.
    """
    if any(isinstance(module, DeformConv2d) for module in detector.modules()):
        raise InputError("quantize.enabled: deformable convolutions cannot be fake-quantized; train without quantize")
    with optional.quiet():  # Model Optimizer names GPU kernels and packages that are not there
        quantization = optional.load("modelopt.torch.quantization.nn")
    batches = list(batches)
    with optional.quiet():
        registry = quantization.QuantModuleRegistry
        if SamePadConv not in registry:  # a convolution with a forward of its own has to be made known
            base = type("QuantSamePadConv", (quantization.QuantLinearConvBase,), {})
            registry.register({SamePadConv: "SamePadConv"})(base)
        convolutions = int8_convolutions(detector)
        for name, largest in observe(network, convolutions, batches, method).items():
            conv = registry.convert(convolutions[name])
            conv.input_quantizer.set_from_attribute_config({"num_bits": 8, "axis": None})
            conv.input_quantizer.amax = torch.tensor(largest, device=conv.weight.device)
            # Weights have new ranges in each step, as calibrating the exported file takes them from the final ones
            conv.weight_quantizer.set_from_attribute_config({"num_bits": 8, "axis": 0, "type": "dynamic"})
        with _eval_mode(network), torch.no_grad():
            network(batches[0])  # on a GPU this compiles kernels, better silently now than with messages later
    return len(convolutions)


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
    """The weights of a folded network with quantizers as the state dict of a float one with batch norms."""
    state = {key: value for key, value in network.state_dict().items() if not QUANTIZER.search(key)}
    with torch.device("meta"):
        plain = build_network(network.config)
    return unfuse_batch_norm(state, plain)


@contextmanager
def _eval_mode(network: nn.Module) -> Iterator[None]:
    training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(training)
