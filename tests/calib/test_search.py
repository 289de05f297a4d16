"""The search for the layers that stay float: what it counts, remembers, ranks and draws."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calib import agreement, bisection, sensitivity
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


@given(st.sets(st.integers(0, 29), max_size=4))
def test_wrong_layers_are_found(bad):
    layers = [f"layer{i}" for i in range(30)]

    def lost_db(kept):
        return 20.0 if any(f"layer{i}" not in kept for i in bad) else 0.2

    assert set(agreement.wrong_layers(layers, lost_db, progress=False)) == {f"layer{i}" for i in bad}


def test_journal_goes_on_and_is_refused_for_another_search(tmp_path):
    path, accuracy = tmp_path / "journal.json", Accuracy(30.0, 50.0, 25.0, 12)
    journal = Journal(path, {"model": "a"})
    journal.add_layer(Sensitivity("w1", "Conv", 31.5))
    assert journal.reference("all images", lambda: accuracy) == accuracy
    worse = dataclasses.replace(accuracy, AP=20.0)
    assert journal.trial(["w1", "w2"], lambda: worse) == worse
    assert journal.wrong_layers(lambda: ["w2"]) == ["w2"]
    again = Journal(path, {"model": "a"})
    assert again.layers["w1"].snr_db == 31.5
    assert again.reference("all images", lambda: pytest.fail("measured twice")) == accuracy
    assert again.trial(["w1", "w2"], lambda: pytest.fail("measured twice")) == worse
    assert again.wrong_layers(lambda: pytest.fail("looked for twice")) == ["w2"]
    other = Journal(path, {"model": "b"})
    assert (other.layers, other.references, other.trials, other.wrong) == ({}, {}, {}, None)


JOURNALS = [
    '{"key": {}, "layers": [{}], "references": {}, "trials": [], "wrong": null}',
    '{"key": {}, "layers": [], "references": {"all images": 30}, "trials": [], "wrong": null}',
    '{"key": {}, "layers": [], "references": {}, "trials": [], "wrong": "w1"}',
    '{"key": {}, "layers": [], "references": {}, "trials": [], "wrong": NaN}',
    "[" * 100_000,
]


@pytest.mark.parametrize("text", ["", "[]", "{}", *JOURNALS])
def test_what_is_no_journal_is_written_anew(tmp_path, text, caplog):
    path = tmp_path / "journal.json"
    path.write_text(text)
    Journal(path, {}).add_layer(Sensitivity("w1", "Conv", 31.5))
    assert "journal.json is not what a search left, so all is measured anew" in caplog.text
    assert list(Journal(path, {}).layers) == ["w1"]


def test_ranking():
    rows = [
        Sensitivity(name, "Conv", snr_db, drop)
        for name, snr_db, drop in (("a", 40.0, None), ("b", 30.0, 0.1), ("c", 35.0, 2.0), ("d", 20.0, None))
    ]
    assert [row.layer for row in sensitivity.ranked(rows, 0.3)] == ["c", "d", "b", "a"]
    assert [row.layer for row in sensitivity.ranked(rows)] == ["d", "b", "c", "a"]


def test_signal_to_noise():
    signal = [[np.full(4, 10.0, np.float32)]]
    assert sensitivity.signal_to_noise(signal, [[np.full(4, 11.0, np.float32)]]) == pytest.approx(20)
    assert sensitivity.signal_to_noise(signal, signal) == sensitivity.MAX_DB


def test_the_chart_shows_the_worst_layers(tmp_path):
    ranking = [Sensitivity(f"layer{i}", "Conv", 20.0 + i) for i in range(sensitivity.BARS + 5)]
    sensitivity.draw(tmp_path / "s.svg", "the model", ranking, ["layer3"])
    chart = (tmp_path / "s.svg").read_text()
    assert all(text in chart for text in ("the model", "layer0<", "kept float", "INT8"))
    assert f"layer{sensitivity.BARS}<" not in chart
