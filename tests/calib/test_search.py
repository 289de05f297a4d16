"""The search for the layers that stay float: what it counts, remembers, ranks and draws."""

from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calib import bisection, search, sensitivity
from calib.journal import Journal
from calib.qdq import Layer
from calib.record import Accuracy
from calib.sensitivity import Sensitivity

GOAL_DB = 30.0


class FakeCandidates:
    """Ten convolutions, five more of one layer, as they share weights, and an addition; another convolution is float.

    The models of it are the layers that stay float.
    """

    convolutions = 16
    layers = (
        *(Layer(f"conv{i}", (f"conv{i}",), "Conv") for i in range(10)),
        Layer("shared", tuple("abcde"), "Conv"),
        Layer("add", ("add",), "Add"),
    )

    def alone(self, name):
        return [layer.name for layer in self.layers if layer.name != name]

    def float32(self, float_layers):
        return list(float_layers)

    def finished(self, float_layers):
        return list(float_layers)

    @property
    def model(self):
        return SimpleNamespace(whole=lambda: None)


class FakeProbe:
    """Noise that adds up: that of a layer is in ``noise``, else ``rest`` each."""

    def __init__(self, noise, rest=1e-5):
        self.noise = {layer.name: noise.get(layer.name, rest) for layer in FakeCandidates.layers}

    def snr_db(self, float_layers):
        total = sum(noise for name, noise in self.noise.items() if name not in float_layers)
        return -10 * math.log10(total)


class FakeGauge:
    """Passes with so many layers float."""

    def __init__(self, needed):
        self.needed, self.measured = needed, []

    def measure(self, float_layers):
        self.measured.append(float_layers)
        return Accuracy(30.0 if float_layers is None or len(float_layers) >= self.needed else 20.0, 0.0, 0.0, 1)

    def passes(self, found, reference):
        return found.AP >= reference.AP


def chosen(tmp_path, noise, gauge=None):
    journal, candidates, probe = Journal(tmp_path / "journal.json", {}), FakeCandidates(), FakeProbe(noise)
    return search.choose(candidates, probe, gauge, journal, GOAL_DB)


def test_the_noisiest_layers_stay_float_until_little_noise_is_left(tmp_path):
    assert chosen(tmp_path, {"conv3": 0.01, "add": 0.002, "conv4": 0.0001}).float_layers == ["conv3", "add"]


def test_no_layer_does_where_there_is_little(tmp_path):
    choice = chosen(tmp_path, {})
    assert (choice.float_layers, choice.ranking) == ([], [])


def test_four_fifths_of_the_convolutions_stay_int8(tmp_path):
    """Here 13 of 16, and 15 can be INT8; what is no convolution may stay float as well."""
    assert chosen(tmp_path, {f"conv{i}": 0.1 for i in range(10)}).float_layers == ["conv0", "conv1", "add"]


def test_layers_that_share_weights_count_by_their_convolutions(tmp_path, monkeypatch):
    monkeypatch.setattr(FakeCandidates, "convolutions", 15)
    choice = chosen(tmp_path, {"shared": 0.9, **{f"conv{i}": 0.1 + 0.01 * (9 - i) for i in range(1, 6)}})
    assert choice.float_layers == ["conv1", "conv2", "conv3", "add"]  # 12 of 15 stay INT8


def test_more_stay_float_where_ap_asks_for_it(tmp_path):
    gauge = FakeGauge(5)
    choice = chosen(tmp_path, {"add": 0.01}, gauge)
    assert len(choice.float_layers) == 5
    assert choice.float_layers[0] == "add"
    assert gauge.measured[:2] == [None, ["add"]]


def test_the_least_noise_that_passes_is_measured_once(tmp_path):
    gauge = FakeGauge(0)
    assert chosen(tmp_path, {"add": 0.01}, gauge).float_layers == ["add"]
    assert gauge.measured == [None, ["add"]]


def test_nothing_passes(tmp_path):
    assert chosen(tmp_path, {}, FakeGauge(99)).float_layers is None


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
