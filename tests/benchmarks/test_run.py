"""The table of what can be measured, whose functions are named by text."""

from __future__ import annotations

import pytest

from benchmarks.run import MEASUREMENTS


@pytest.mark.parametrize("what", MEASUREMENTS)
def test_the_functions_of_a_measurement_are_there(what: str) -> None:
    measurement = MEASUREMENTS[what]
    for name in filter(None, (measurement.measure, measurement.draw, measurement.write)):
        assert callable(measurement.function(name))
