"""The figures of docs/uncertainty.md are those of the committed result, and as long as there is none it says so."""

from __future__ import annotations

import json
from typing import Any

from benchmarks.run import RESULTS
from tests.support.documents import CHECKOUT

TEXT = (CHECKOUT / "docs" / "uncertainty.md").read_text()
HEADERS = (
    "model",
    "edges",
    "within 1 sigma before factors",
    "within 1 sigma",
    "within 2 sigma",
    "rank correlation of sigmas",
    "of scores",
    "median error by fifths of sigma, pixels",
    "cost in OpenVINO",
    "in ONNX Runtime",
)


def row_of(name: str, found: dict[str, Any]) -> str:
    """Correlations are those of errors relative to the box's side."""
    before, after = (found[key]["edges"]["all"] for key in ("unscaled", "scaled"))
    cells = (
        name,
        f"{after['edges']}",
        f"{before['within_1_sigma']:.1f} %",
        f"{after['within_1_sigma']:.1f} %",
        f"{after['within_2_sigma']:.1f} %",
        f"{found['relative_rank_correlation_of_sigmas']:.2f}",
        f"{found['relative_rank_correlation_of_scores']:.2f}",
        " ".join(f"{error:.1f}" for error in found["median_error_px_by_fifths_of_sigma"]),
        *(f"{found['cost'][library]['median_difference_percent']:.1f} %" for library in ("openvino", "onnxruntime")),
    )
    return f"| {' | '.join(cells)} |"


def test_the_figures_are_those_that_were_measured() -> None:
    path = RESULTS / "uncertainty.json"
    if not path.exists():
        assert "was not measured yet" in TEXT
        assert "rank correlation of sigmas" not in TEXT
        return
    models = json.loads(path.read_text())["models"]
    lines = [f"| {' | '.join(HEADERS)} |", *(row_of(*item) for item in models.items())]
    missing = [line for line in lines if line not in TEXT.splitlines()]
    assert not missing, "docs/uncertainty.md lacks:\n" + "\n".join(missing)
    assert "was not measured yet" not in TEXT


def test_a_row() -> None:
    edges = {"all": {"edges": 5483, "within_1_sigma": 89.75, "within_2_sigma": 97.976}}
    found = {
        "unscaled": {"edges": edges},
        "scaled": {"edges": {"all": {"edges": 5483, "within_1_sigma": 70.436, "within_2_sigma": 89.477}}},
        "relative_rank_correlation_of_sigmas": 0.497,
        "relative_rank_correlation_of_scores": 0.342,
        "median_error_px_by_fifths_of_sigma": [1.41, 7.06],
        "cost": {"openvino": {"median_difference_percent": 0.6}, "onnxruntime": {"median_difference_percent": -0.1}},
    }
    expected = "| a | 5483 | 89.8 % | 70.4 % | 89.5 % | 0.50 | 0.34 | 1.4 7.1 | 0.6 % | -0.1 % |"
    assert row_of("a", found) == expected
