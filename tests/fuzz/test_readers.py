"""What a damaged file can do to a reader: be refused in a sentence, and nothing else."""

from __future__ import annotations

import pytest

from tests.fuzz.limits import EXECUTIONS, SEED, SLOW_EXECUTIONS
from tests.fuzz.parent import fuzz
from tests.fuzz.registry import all_readers

READERS = all_readers()
PARTS = 4  # of the slow run, for as many workers


@pytest.mark.parametrize("name", READERS)
def test_a_reader_holds(name, tmp_path):
    outcome = fuzz(READERS[name], EXECUTIONS, SEED, tmp_path)
    assert not outcome.failures, str(outcome)
    assert outcome.executions == EXECUTIONS
    assert outcome.read, f"{outcome}: the seeds are refused, so nothing was tried"


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("name", READERS)
def test_a_reader_holds_for_long(name, part, tmp_path):
    share = SLOW_EXECUTIONS // PARTS
    outcome = fuzz(READERS[name], share, SEED + 1, tmp_path, first=part * share)
    assert not outcome.failures, str(outcome)
    assert outcome.executions == share
