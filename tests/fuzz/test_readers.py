"""What a damaged file can do to a reader: be refused in a sentence, and nothing else."""

from __future__ import annotations

import pytest

from tests.fuzz.limits import EXECUTIONS, SEED, SLOW_EXECUTIONS
from tests.fuzz.parent import fuzz
from tests.fuzz.registry import all_readers

READERS = all_readers()


@pytest.mark.parametrize("name", READERS)
def test_a_reader_holds(name, tmp_path):
    outcome = fuzz(READERS[name], EXECUTIONS, SEED, tmp_path)
    assert not outcome.failures, str(outcome)
    assert outcome.executions == EXECUTIONS
    assert outcome.read, f"{outcome}: the seeds are refused, so nothing was tried"


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_a_reader_holds_for_long(name, tmp_path):
    outcome = fuzz(READERS[name], SLOW_EXECUTIONS, SEED + 1, tmp_path)
    assert not outcome.failures, str(outcome)
    assert outcome.executions == SLOW_EXECUTIONS
