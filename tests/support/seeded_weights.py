"""Weights that are the same everywhere: each tensor's values come from its key alone.

So that what another project's code computed with them, once, can be compared with what ours does.
"""

from __future__ import annotations

import hashlib
import math
import zlib

import numpy as np
import torch


def seeded(key, shape, gain):
    """Values under which signals keep their size from layer to layer; float32 ``shape``."""
    rng = np.random.default_rng(zlib.crc32(key.encode()))
    values = rng.standard_normal(shape)
    if key.endswith("running_var") or (len(shape) == 1 and key.endswith("weight")):
        values = 0.5 + rng.random(shape)
    elif len(shape) < 2:
        values = 0.1 * values
    else:
        values = gain / math.sqrt(np.prod(shape[1:])) * values
    return torch.from_numpy(np.asarray(values, np.float32))


def seeded_state(state, gain=1.2):
    """A state dict with such values; counters are 0, the bins of distributions stay. ``gain`` is that of a layer."""
    counters = {key: torch.tensor(0) for key in state if key.endswith("num_batches_tracked")}
    bins = {key: value for key, value in state.items() if key.endswith(".project")}
    others = {key: value for key, value in state.items() if key not in counters | bins}
    return counters | bins | {key: seeded(key, tuple(value.shape), gain) for key, value in others.items()}


def seeded_images(side):
    """Normalized images, float32 ``[2, 3, side, side]``."""
    return torch.from_numpy(np.random.default_rng(side).standard_normal((2, 3, side, side)).astype(np.float32))


def keys_digest(state):
    """Of the keys of a state dict with their shapes."""
    lines = sorted(f"{key} {list(value.shape)}" for key, value in state.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def figures(maps):
    """Of every map: its mean, its deviation, and three of its values."""
    found = []
    for level in maps:
        flat = level.double().flatten()
        places = [len(flat) // 7, len(flat) // 2, 6 * len(flat) // 7]
        found.append([float(flat.mean()), float(flat.std()), *(float(flat[place]) for place in places)])
    return found
