"""Records, and their classes chosen and renamed."""

from __future__ import annotations

import pytest

from gfl_edge.annotations.records import Objects
from gfl_edge.errors import AnnotationError
from tests.support.annotation_files import small_set


def test_select_keeps_renames_and_joins_classes(tmp_path, caplog):
    found = small_set(tmp_path).select(["vehicle"], {"car": "vehicle", "truck": "vehicle"})
    assert found.class_names == ("vehicle",)
    assert found.records[0].labels.tolist() == [0, 0, 0]
    assert found.records[0].boxes[:, 2].tolist() == [11, 12, 13]
    assert found.records[0].ignored.labels.tolist() == [0]
    assert "left out the boxes of 1 classes: cat (1)" in caplog.text
    assert found.count_by_class() == {"vehicle": 3}


def test_select_without_names_keeps_all_in_their_order(tmp_path):
    found = small_set(tmp_path).select(rename={"truck": "lorry"})
    assert found.class_names == ("cat", "car", "lorry")
    assert found.records[0].labels.tolist() == [0, 1, 2, 1]
    assert small_set(tmp_path).select(["truck", "cat"]).records[0].labels.tolist() == [1, 0]


def test_select_refuses_names_that_are_not_there(tmp_path):
    with pytest.raises(
        AnnotationError, match=r"origin.json has no class dgo, which classes names. Its classes: cat, car"
    ):
        small_set(tmp_path).select(["dgo"])
    with pytest.raises(AnnotationError, match="which rename names"):
        small_set(tmp_path).select(rename={"dgo": "dog"})


def test_objects_of_unequal_number_are_refused():
    with pytest.raises(ValueError, match="1 boxes, 2 labels"):
        Objects.of([[0, 0, 1, 1]], [0, 1])
