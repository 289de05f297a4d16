"""JSON that people read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gfl_edge.parsing.json_text import MAX_LINE, readable_json


@pytest.mark.parametrize(
    "values",
    [{}, [], "x", 1.5, None, {"a": {}}, [[1, 2], []], {"a": [{"b": [None, True, "\u4eba\n"]}] * 40}, ({"c": (1,)},)],
)
def test_it_says_the_same(values: Any) -> None:
    assert json.loads(readable_json(values)) == json.loads(json.dumps(values))


def test_what_fits_is_one_line() -> None:
    detection = {"box_xyxy": [1.25, 2.5, 300.0, 400.75], "score": 0.5, "class_name": "person"}
    lines = readable_json({"images": [{"source": "a.jpg", "detections": [detection] * 3}], "skipped": []}).splitlines()
    assert [json.loads(line.rstrip(",")) for line in lines[5:8]] == [detection] * 3
    assert lines[-2:] == ['  "skipped": []', "}"]
    assert max(map(len, lines)) <= MAX_LINE
