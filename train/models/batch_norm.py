"""Batch norms folded into the convolutions before them, as they are at inference, and the way back."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from train.models.repvgg import merge_branches, split_branches

Network = TypeVar("Network", bound=nn.Module)


def normalized_convolutions(network: nn.Module) -> Iterator[tuple[str, str]]:
    """Names of the convolutions that a batch norm follows, each with the name of that batch norm.

    Every batch norm of our networks is registered right after its convolution.
    """
    for parent_name, parent in network.named_modules():
        prefix = f"{parent_name}." if parent_name else ""
        for (conv_name, conv), (norm_name, norm) in itertools.pairwise(parent.named_children()):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                yield f"{prefix}{conv_name}", f"{prefix}{norm_name}"


def fuse_batch_norm(network: Network) -> Network:
    """A copy of ``network`` in eval mode whose batch norms are folded into the convolutions before them.

    The branches of RepVGG become one convolution. Not done in FP16, into which the statistics of a batch norm may not
    fit.
    """
    network = copy.deepcopy(network).eval()
    merge_branches(network)
    for conv_name, norm_name in list(normalized_convolutions(network)):
        conv, norm = network.get_submodule(conv_name), network.get_submodule(norm_name)
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        network.set_submodule(conv_name, fuse_conv_bn_eval(conv, norm))
        network.set_submodule(norm_name, nn.Identity())
    return network


def unfuse_batch_norm(state: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """The state dict of a folded network as one for the network with batch norms.

    They become identities, except for the biases of convolutions that have none themselves. Of RepVGG's branches all
    but the largest give zeros.

    Args:
        state: of what :func:`fuse_batch_norm` gave.
        network: with batch norms; its tensors are not read and may be on the meta device.
    """
    unfused = split_branches(state, network)
    for conv_name, norm_name in normalized_convolutions(network):
        conv, norm = network.get_submodule(conv_name), network.get_submodule(norm_name)
        assert isinstance(norm, nn.BatchNorm2d)
        if f"{norm_name}.weight" in unfused:  # of a branch
            continue
        bias = state[f"{conv_name}.bias"]
        if conv.bias is None:
            del unfused[f"{conv_name}.bias"]
        unfused |= {
            f"{norm_name}.weight": torch.ones_like(bias),
            f"{norm_name}.bias": bias if conv.bias is None else torch.zeros_like(bias),
            f"{norm_name}.running_mean": torch.zeros_like(bias),
            f"{norm_name}.running_var": torch.full_like(bias, 1 - norm.eps),
            f"{norm_name}.num_batches_tracked": torch.tensor(0),
        }
    return unfused
