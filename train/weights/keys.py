"""Copying a state dict into a network so that every key is accounted for."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor, nn

from gfl_edge.errors import CheckpointError
from train.weights.naming import listed

COUNTERS = re.compile(r".*\.num_batches_tracked$")  # statistics of training; absent in some exports


def copy_strictly(
    network: nn.Module, given: Mapping[str, Tensor], title: str, optional: re.Pattern[str] = COUNTERS
) -> None:
    """Copy ``given`` into ``network``, which keeps its values where optional keys are not given.

    Raises:
        CheckpointError: see :func:`check_keys`.
    """
    check_keys(network, given, title, optional)
    network.load_state_dict(given, strict=False)


def check_keys(
    network: nn.Module, given: Mapping[str, Tensor], title: str, optional: re.Pattern[str] = COUNTERS
) -> None:
    """Compare a state dict with a network, which may be on the device meta.

    Args:
        network: that it should be of.
        given: the state dict, of any dtype.
        title: start of the error message: who does not fit whom.
        optional: keys that may be missing.

    Raises:
        CheckpointError: missing, unexpected or misshapen keys; lists the first of each.
    """
    expected = network.state_dict()
    missing = sorted(key for key in expected.keys() - given.keys() if not optional.match(key))
    unexpected = sorted(given.keys() - expected.keys())
    misshapen = [
        f"{k} {list(given[k].shape)} (expected {list(expected[k].shape)})"
        for k in sorted(given.keys() & expected.keys())
        if given[k].shape != expected[k].shape
    ]
    problems = {"missing": missing, "unexpected": unexpected, "of another shape": misshapen}
    if any(problems.values()):
        shown = "; ".join(f"{len(keys)} keys {what}: {listed(keys)}" for what, keys in problems.items() if keys)
        raise CheckpointError(f"{title}: {shown}")


def count_indices(state: Mapping[str, Tensor], pattern: str) -> int:
    """How many different indices the keys that ``pattern`` matches have in its group."""
    return len({found[1] for key in state if (found := re.match(pattern, key))})
