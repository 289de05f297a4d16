"""How large an activation may be before it is clipped: the range of a tensor from the histogram of its magnitudes.

INT8 has 127 steps on either side of zero, so a range r makes steps of r / 127; uint8 has 255 in all. A wide range
rounds coarsely, a narrow one clips. The methods weigh this differently; which is best depends on the model.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Method = Literal["entropy", "max", "percentile", "mse"]
METHODS: tuple[Method, ...] = ("entropy", "max", "percentile", "mse")

BINS = 2048
STEPS = 127  # of INT8, symmetric, on one side
UNSIGNED_STEPS = 255  # of uint8
PERCENTILE = 99.99
NARROWEST = 1e-36  # width of a bin whose inverse float32 can hold
MAX_VALUES = 1 << 19  # of one call of Histogram.add that are counted
STRIDE = 16  # bins between the ranges that "entropy" and "mse" try


class Histogram:
    """Counts of the magnitudes of a tensor over many images; the width of the bins doubles when a value exceeds them.

    Attributes:
        counts: int64 ``[BINS]``.
        width: of a bin; 0 until there is a value other than 0.
        largest: magnitude seen.
        least: of the values seen and 0.
        most: of the values seen and 0.
    """

    def __init__(self) -> None:
        self.counts: NDArray[np.int64] = np.zeros(BINS, np.int64)
        self.width = 0.0
        self.largest = self.least = self.most = 0.0

    def add(self, values: NDArray[np.float32]) -> None:
        """Count the magnitudes of ``values``, finite and flat: of an even sample where there are very many."""
        magnitudes = np.abs(values)
        largest = float(magnitudes.max(initial=0.0))
        magnitudes = magnitudes[:: -(-magnitudes.size // MAX_VALUES) or 1]
        self.largest = max(self.largest, largest)
        self.least = min(self.least, float(values.min(initial=0.0)))
        self.most = max(self.most, float(values.max(initial=0.0)))
        if self.width == 0.0 and largest > 0.0:
            self.width = max(largest / BINS, NARROWEST)
        while largest > self.width * BINS:
            self.counts = np.concatenate((self.counts.reshape(-1, 2).sum(axis=1), np.zeros(BINS // 2, np.int64)))
            self.width *= 2
        if self.width > 0.0:
            bins = np.minimum((magnitudes * np.float32(1 / self.width)).astype(np.int32), BINS - 1)
            self.counts += np.bincount(bins, minlength=BINS)
        else:
            self.counts[0] += len(magnitudes)

    def unsigned_steps(self) -> int:
        """The steps that uint8 with a zero of its own has on the wider side of zero: 255 where no value is negative."""
        width = self.most - self.least
        return round(UNSIGNED_STEPS * self.largest / width) if width > 0 else STEPS

    def range(self, method: Method, steps: int = STEPS) -> float:
        """The magnitude from which on values are clipped; 0 for a tensor that is 0 everywhere.

        Args:
            method: which of them.
            steps: on the wider side of zero.
        """
        if self.largest == 0.0:
            return 0.0
        if method == "max":
            return self.largest
        if method == "percentile":
            cumulated = np.cumsum(self.counts)
            last = int(np.searchsorted(cumulated, cumulated[-1] * PERCENTILE / 100))
            return min(self.largest, (last + 1) * self.width)
        costs = _divergence if method == "entropy" else _squared_error
        used = min(BINS, int(np.ceil(self.largest / self.width)))
        candidates = np.arange(min(steps + 1, used), used + STRIDE, STRIDE).clip(max=used)
        values = [costs(self.counts, int(bins), steps) for bins in candidates]
        best = candidates[len(values) - 1 - int(np.argmin(values[::-1]))]  # of equals the widest
        return min(self.largest, float(best) * self.width)


def _squared_error(counts: NDArray[np.int64], bins: int, steps: int) -> float:
    """Mean squared error in bins of rounding to ``steps`` steps and clipping at ``bins`` bins."""
    centers = np.arange(len(counts)) + 0.5
    step = bins / steps
    rounded = np.minimum(np.round(centers / step), steps) * step
    return float((counts * (rounded - centers) ** 2).sum() / counts.sum())


def _divergence(counts: NDArray[np.int64], bins: int, steps: int) -> float:
    """Kullback-Leibler divergence of the clipped distribution from its quantized form (Migacz, GTC 2017).

    What is clipped counts only in the last bin of the reference; a quantized step spreads its count evenly over those
    of its bins that are not empty. Bin 0 is left out: exact zeros, as of ReLU, are always exact in INT8.
    """
    reference = counts[:bins].astype(np.float64)
    reference[0] = 0.0
    kept = reference.copy()
    reference[-1] += counts[bins:].sum()
    step_of = np.minimum(np.arange(bins) * (steps + 1) // bins, steps)
    filled = kept > 0
    totals = np.bincount(step_of, weights=kept, minlength=steps + 1)
    members = np.bincount(step_of, weights=filled, minlength=steps + 1)
    spread = np.divide(totals, members, out=np.zeros_like(totals), where=members > 0)
    quantized = np.where(filled, spread[step_of], 0.0)
    if reference.sum() == 0 or quantized.sum() == 0:
        return 0.0
    p, q = reference / reference.sum(), quantized / quantized.sum()
    both = (p > 0) & (q > 0)
    lost = p[(p > 0) & ~both].sum()  # a clipped tail in a bin that was empty
    return float((p[both] * np.log(p[both] / q[both])).sum() + lost * 20.0)
