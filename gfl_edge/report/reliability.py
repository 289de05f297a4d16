"""The chart of what :mod:`gfl_edge.evaluation.uncertainty` measures."""

from __future__ import annotations

from collections.abc import Mapping

from gfl_edge.evaluation.uncertainty import Uncertainty
from gfl_edge.report.plots import Points, line_chart


def reliability_chart(found: Mapping[str, Uncertainty]) -> bytes:
    """An SVG: by the sigma of edges, what 68 % of their errors are below, beside what would be right.

    Args:
        found: by the name in the legend; those without edges are left out.
    """
    curves: dict[str, Points] = {
        name: [(one.sigma_px, one.error_68_px) for one in each.bins] for name, each in found.items() if each.bins
    }
    ends = [x for points in curves.values() for x, _ in points] or [0.0, 1.0]
    return line_chart(
        "Errors of edges by what the model expects",
        "sigma, pixels (tenths of all edges)",
        "68 % of the errors are below, pixels",
        {**curves, "as large as sigma": [(end, end) for end in (min(ends), max(ends))]},
        from_zero=True,
    )
