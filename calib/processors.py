"""INT8 that computes the same on every CPU: weights that no processor saturates, activations without a sign.

Processors without VNNI (AVX2, the first AVX-512) multiply unsigned activations by signed weights and add the products
of two neighboring input channels in 16 bits (vpmaddubsw), which saturates unless two such weights of one sign add up to
128 at most: 255 * 128 < 2^15. On these, OpenVINO (2026.4) also shifts activations that have a sign to unsigned ones,
and forgets it where a convolution reads a concatenation: its output is off by a constant per channel. Activations that
are unsigned in the file, each with its zero, are right everywhere, and finer where little or nothing is negative.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from calib.histogram import UNSIGNED_STEPS

MAX_SUM = 127  # steps of two weights; rounding may make it 128


def widest_sum(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """The largest magnitude that two neighboring weights of one sign add up to, ``[O, I, ...]`` -> ``[O]``.

    Neighbors are the input channels 0 and 1, 2 and 3 and so on at one place of the kernel. A weight whose neighbor is
    of the other sign, or that has none, as in a depthwise convolution, counts alone.
    """
    outputs, inputs = weights.shape[:2]
    flat = weights.reshape(outputs, inputs, -1)
    padded = np.concatenate((flat, np.zeros_like(flat[:, : inputs % 2])), axis=1)
    pairs = padded.reshape(outputs, -1, 2, flat.shape[2])
    sums = [np.maximum(signed, 0).sum(axis=2).max(axis=(1, 2)) for signed in (pairs, -pairs)]
    return np.asarray(np.maximum(*sums), np.float32)


def unsigned_steps(low: float, high: float) -> tuple[float, int]:
    """Scale and zero point of uint8 for values from ``low`` to ``high`` and 0, which is exact; scale 0 for no range."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / UNSIGNED_STEPS
    return scale, round(-low / scale) if scale else 0
