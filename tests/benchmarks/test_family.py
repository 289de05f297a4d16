"""The table of the family: what is measured of one small model, and the page that is written of all."""

from __future__ import annotations

import functools
import json

import pytest

from benchmarks.artifacts import family
from benchmarks.artifacts.gfl_engines import random_weights
from docs import family as page
from gfl_edge.zoo.catalogue import CATALOGUE
from train.describe import load_described
from train.models.gfl import GFLConfig

SMALL = GFLConfig(
    depth=18, base_channels=8, neck_channels=32, head_channels=64, stacked_convs=1, strides=(8, 16, 32), num_classes=2
)


def test_every_model_is_there_once():
    rows = family.members()
    names = [member.name for member in rows]
    assert len(set(names)) == len(names)
    assert {"sapd-r50", "nanodet-t-320", "nanodet-repvgg-a0-416"} < set(names)
    for member in rows:
        if member.name in CATALOGUE:
            assert member.published_ap == CATALOGUE[member.name].val_ap
    kinds = {name.rstrip("-0123456789x").removesuffix("-plus") for name in names}
    assert len(kinds) > 5


def test_random_weights_say_what_they_are(tmp_path):
    """Of 11 bins an edge, unlike most: the number of classes is what the bins leave of the outputs."""
    network, _ = load_described(random_weights("nanodet-efficientlite1-416", tmp_path))
    assert (network.config.num_classes, network.config.reg_max) == (80, 10)


def test_the_page_is_what_the_result_says():
    """Neither is there before the first measurement."""
    content = page.page()
    assert page.PAGE.is_file() == (content is not None), "write it with: python docs/family.py"
    if content is not None:
        assert page.PAGE.read_text() == content, "write it with: python docs/family.py"


@pytest.mark.slow
def test_a_row_of_a_small_model_goes_on_after_a_stop(tmp_path, data, monkeypatch):
    pytest.importorskip("tensorrt_rtx")
    data("coco128/train2017")
    exported = functools.partial(family._export_random, "small-gfl", SMALL)
    member = family.Member("small-gfl", "random", 12.5, exported)
    result = family.measure(tmp_path, [member])
    (row,) = result["rows"]
    assert row["parity"]["fp32"]["score"] < 1e-4
    assert row["ap"] is None
    assert row["int8_convolutions"][0] > 10
    assert row["engines"]["int8"]["int8_convolutions"] > 10
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".json"] == []
    name, size, published, here, *numbers = page.cells(json.loads(json.dumps(row)))
    assert (name, size, published, here) == ("small-gfl", "800 x 1344", "12.5", "-")
    assert all(float(number) >= 0 for number in numbers)
    monkeypatch.setattr(family, "row", lambda *_: pytest.fail("it was measured already"))
    assert family.measure(tmp_path, [member]) == json.loads(json.dumps(result))
