"""Mutants are what they say, and a result that is kept is as good as promised."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from benchmarks.mutants import trial
from benchmarks.mutants.accepted import accepted
from benchmarks.mutants.mutants import MIN_KILLED_SHARE, MODULES
from benchmarks.mutants.mutate import mutants_of
from benchmarks.run import RESULTS

CHECKOUT = Path(__file__).resolve().parents[2]
SOURCE = '''
LIMIT: int = 3


class Box:
    """A box."""

    side: Annotated[float, Limits(ge=0)] = 1.5

    @property
    def area(self) -> float | None:
        return self.side * self.side if self.side > 0 else None
'''


MUTANTS = mutants_of(SOURCE)


def test_mutants_change_one_place_each_and_remain_python():
    for mutant in MUTANTS:
        ast.parse(mutant.source)
        assert mutant.source.replace(mutant.after, mutant.before) == SOURCE


def test_constants_fields_their_limits_and_properties_are_mutated():
    found = {(mutant.place, mutant.after) for mutant in MUTANTS}
    assert found >= {
        ("", "LIMIT: int = 4"),
        ("Box", "side: Annotated[float, Limits(ge=0)] = 2.5"),
        ("Box", "side: Annotated[float, Limits(ge=1)] = 1.5"),
        ("Box.area", "return self.side / self.side if self.side > 0 else None"),
        ("Box.area", "return self.side * self.side if self.side >= 0 else None"),
    }
    assert len(found) == len(MUTANTS)


def test_annotations_and_docstrings_are_left_alone():
    assert all("-> float | None:" in mutant.source and '"""A box."""' in mutant.source for mutant in MUTANTS)


def test_a_mutant_is_killed_by_a_failing_test_and_by_time():
    module, tests = "gfl_edge.ops.decode", ["--noconftest", "tests/gfl_edge/ops/test_decode.py", "-k", "every_distance"]
    source = (CHECKOUT / "gfl_edge/ops/decode.py").read_text()
    assert trial.run(module, source, tests, limit_s=100) == "survived"
    spoiled = source.replace("centers - distances[..., :2]", "centers + distances[..., :2]")
    assert trial.run(module, spoiled, tests, limit_s=100) == "killed"
    assert trial.run(module, f"{source}\nwhile True: pass\n", tests, limit_s=1) == "timed out"
    with pytest.raises(RuntimeError, match="no tests"):
        trial.run(module, source, [*tests, "-k", "nothing"], limit_s=100)


ROWS = {row["module"]: row for row in json.loads((RESULTS / "mutants.json").read_text())["modules"]}


@pytest.mark.parametrize("module", MODULES)
def test_the_tests_of_every_module_notice_most_of_its_mutants(module):
    row = ROWS[module]
    assert row["killed_share"] >= MIN_KILLED_SHARE
    assert row["unexplained"] == []
    assert {(mutant["place"], mutant["after"]) for mutant in row["equivalent"]} == accepted(module).keys()
