"""Nothing that the project writes as JSON holds NaN or infinity, which other readers refuse."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from gfl_edge.errors import InputError
from gfl_edge.parsing.json_text import json_text

CHECKOUT = Path(__file__).resolve().parents[2]
PACKAGES = ("gfl_edge", "calib", "train", "export", "benchmarks", "examples")
NOT_WRITTEN = {  # to be read by itself, or hashed
    "gfl_edge/parsing/validation.py",
    "gfl_edge/cuda/compiler.py",
    "benchmarks/fingerprints.py",
    "benchmarks/faults/inputs.py",
    "train/schema.py",
}


def test_json_is_written_without_what_it_has_no_number_for() -> None:
    paths = [path for package in PACKAGES for path in sorted((CHECKOUT / package).rglob("*.py"))]
    found = {
        path.relative_to(CHECKOUT).as_posix()
        for path in paths
        for line in path.read_text("utf-8").splitlines()
        if re.search(r"json\.dumps?\(", line) and "allow_nan=False" not in line and "PREFIX" not in line
    }
    assert found <= NOT_WRITTEN


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_json_lacks_is_named(value: float) -> None:
    with pytest.raises(InputError, match=rf"^runs\.1\.ap is {value}, for which JSON has no number$"):
        json_text({"runs": [{"ap": 1.0}, {"ap": value}]}, indent=1)
    with pytest.raises(InputError, match=r"^the value is"):
        json_text(value)
