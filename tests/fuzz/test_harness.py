"""The harness finds the faults that it is there for."""

from __future__ import annotations

import pytest

from tests.fuzz import parent
from tests.fuzz.broken import BROKEN, GOOD
from tests.fuzz.mutate import input_of
from tests.fuzz.registry import all_readers

EXECUTIONS = 20  # of which input 1 is the empty file


def test_inputs_are_the_same_every_time_and_others_with_another_seed():
    reader = BROKEN["_raises"]
    assert input_of(reader, [GOOD], 0, 0) == GOOD
    assert input_of(reader, [GOOD], 0, 1) == b""
    first, again, other = ([input_of(reader, [GOOD], seed, number) for number in range(300)] for seed in (0, 0, 1))
    assert first == again != other
    assert len(set(first)) > 200


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("_raises", "ZeroDivisionError"),
        ("_dies", "died of SIGSEGV"),
        ("_exits", "ended with status 3"),
        pytest.param("_loops", "more than 5 s of computing", marks=pytest.mark.slow),
        ("_takes_memory", "MemoryError"),
        ("_says_too_much", "_WordyError of 100000 characters"),
    ],
)
def test_a_fault_is_found_and_its_input_kept(name, problem, tmp_path):
    outcome = parent.fuzz(BROKEN[name], EXECUTIONS, 0, tmp_path)
    failure = outcome.failures[0]
    assert failure.number == 1
    assert problem in failure.problem
    assert failure.path.read_bytes() == failure.content == b""
    assert f"--reader {name} --seed 0 --number 1" in str(outcome)
    assert outcome.executions == EXECUTIONS or len(outcome.failures) == 10
    assert outcome.read + outcome.refused + len(outcome.failures) == outcome.executions


def test_a_reader_that_waits_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(parent, "STUCK_SECONDS", 2)
    (failure,) = parent.fuzz(BROKEN["_waits"], 2, 0, tmp_path).failures
    assert failure.number == 1
    assert "did not end" in failure.problem


def test_every_driver_has_small_seeds_of_which_the_first_is_good():
    for reader in all_readers().values():
        if not callable(reader.seeds):  # those that are made are looked at where they are used
            assert all(len(seed) <= 10_000 for seed in reader.seed_contents()), reader.name
