"""Copying a state dict into a network so that every key is accounted for."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor, nn

from gfl_edge.errors import CheckpointError

COUNTERS = re.compile(r".*\.num_batches_tracked$")  # statistics of training; absent in some exports


def copy_strictly(
    network: nn.Module, given: Mapping[str, Tensor], title: str, optional: re.Pattern[str] = COUNTERS
) -> None:
    """Copy ``given`` into ``network``.

    Args:
        network: keeps its values where optional keys are not given.
        given: its state dict, of any float dtype.
        title: start of the error message: who does not fit whom.
        optional: keys that may be missing.

    Raises:
        CheckpointError: missing, unexpected or misshapen keys; lists all of them.
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
        listed = "; ".join(f"{len(keys)} keys {what}: {', '.join(keys)}" for what, keys in problems.items() if keys)
        raise CheckpointError(f"{title}: {listed}")
    network.load_state_dict(given, strict=False)
