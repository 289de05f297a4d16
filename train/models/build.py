"""A network from its description."""

from __future__ import annotations

from train.models.gfl import GFL, GFLConfig
from train.models.nanodet import NanoDet, NanoDetConfig

Architecture = NanoDetConfig | GFLConfig
Network = NanoDet | GFL


def build_network(architecture: Architecture, auxiliary: bool = False) -> Network:
    """The network with random weights, in training mode.

    Args:
        architecture: what it is made of.
        auxiliary: add the head that NanoDet-Plus trains with.

    Raises:
        ValueError: an auxiliary head for another family.
    """
    if isinstance(architecture, NanoDetConfig):
        return NanoDet(architecture, auxiliary)
    if auxiliary:
        raise ValueError(f"{architecture.family} has no auxiliary head; take the family nanodet-plus")
    return GFL(architecture)
