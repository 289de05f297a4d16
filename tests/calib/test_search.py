"""The search for the layers that stay float: what it counts, remembers, ranks and draws."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calib import bisection, sensitivity
from calib.journal import Journal
from calib.record import Accuracy
from calib.sensitivity import Sensitivity


@given(st.integers(1, 60), st.integers(1, 80))
def test_fewest_is_the_first_that_passes(limit, needed):
    tried = []

    def passes(count):
        tried.append(count)
        return count >= needed

    assert bisection.fewest(limit, passes) == (needed if needed <= limit else None)
    assert len(tried) == len(set(tried))


def test_journal_goes_on_and_is_refused_for_another_search(tmp_path):
    path, accuracy = tmp_path / "journal.json", Accuracy(30.0, 50.0, 25.0, 12)
    journal = Journal(path, {"model": "a"})
    journal.add_layer(Sensitivity("w1", "Conv", 31.5))
    assert journal.measure_reference(lambda: accuracy) == accuracy
    worse = dataclasses.replace(accuracy, AP=20.0)
    assert journal.trial(["w1", "w2"], lambda: worse) == worse
    again = Journal(path, {"model": "a"})
    assert again.layers["w1"].snr_db == 31.5
    assert again.measure_reference(lambda: pytest.fail("measured twice")) == accuracy
    assert again.trial(["w1", "w2"], lambda: pytest.fail("measured twice")) == worse
    other = Journal(path, {"model": "b"})
    assert (other.layers, other.reference, other.trials) == ({}, None, {})


JOURNALS = [
    '{"key": {}, "layers": [{}], "reference": null, "trials": []}',
    '{"key": {}, "layers": [], "reference": 30, "trials": []}',
    '{"key": {}, "layers": [], "reference": null, "trials": "w1"}',
    '{"key": {}, "layers": [], "reference": NaN, "trials": []}',
    "[" * 100_000,
]


@pytest.mark.parametrize("text", ["", "[]", "{}", *JOURNALS])
def test_what_is_no_journal_is_written_anew(tmp_path, text, caplog):
    path = tmp_path / "journal.json"
    path.write_text(text)
    Journal(path, {}).add_layer(Sensitivity("w1", "Conv", 31.5))
    assert "journal.json is not what a search left, so all is measured anew" in caplog.text
    assert list(Journal(path, {}).layers) == ["w1"]


def test_the_chart_shows_the_worst_layers(tmp_path):
    ranking = [Sensitivity(f"layer{i}", "Conv", 20.0 + i) for i in range(sensitivity.BARS + 5)]
    sensitivity.draw(tmp_path / "s.svg", "the model", ranking, ["layer3"])
    chart = (tmp_path / "s.svg").read_text()
    assert all(text in chart for text in ("the model", "layer0<", "kept float", "INT8"))
    assert f"layer{sensitivity.BARS}<" not in chart
