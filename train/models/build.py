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
        auxiliary: add what exists only in training: NanoDet-Plus' second head, SAPD's meta-selection network.

    Raises:
        ValueError: the family has no such thing.
    """
    if isinstance(architecture, NanoDetConfig):
        return NanoDet(architecture, auxiliary)
    if auxiliary and architecture.family != "sapd":
        raise ValueError(f"{architecture.family} has no auxiliary head; take the family nanodet-plus")
    return GFL(architecture, meta_selection=auxiliary)
