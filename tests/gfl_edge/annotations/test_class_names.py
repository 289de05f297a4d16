"""Files of class names."""

from __future__ import annotations

import pytest

from gfl_edge.annotations.class_names import read_class_names
from gfl_edge.errors import AnnotationError


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("n.txt", "traffic light\ndog\n\ncat, small\n"),
        ("n.yaml", "nc: 3\nnames: ['traffic light', dog, \"cat, small\"]\n"),
        ("n.yaml", "names: [traffic light,\n  dog,  # barks\n  'cat, small',\n]\nother: [1, 2]\n"),
        ("n.yml", "path: x\nnames:\n  0: traffic light\n  1: dog  # barks\n  2: 'cat, small'\nval: images\n"),
        ("n.yml", "names:\n- traffic light\n- dog\n\n- 'cat, small'\nval: images\n"),
        ("n.yml", 'names:\n    - traffic light\n    - dog\n    - "cat, small"\n'),
        ("n.yaml", "names: {0: traffic light, 1: dog, 2: 'cat, small'}\n"),
    ],
)
def test_class_names(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert read_class_names(tmp_path / name) == ("traffic light", "dog", "cat, small")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nc: 3\n", "no entry 'names'"),
        ("names:\nnc: 3\n", "0 class names"),
        ("names: [a, b, a]\n", "3 class names, 2 of them different"),
        ("names:\n  0: a\n  2: b\n", r"numbered \[0, 2\]"),
    ],
)
def test_class_names_that_are_none(tmp_path, text, message):
    (tmp_path / "n.yaml").write_text(text)
    with pytest.raises(AnnotationError, match=message):
        read_class_names(tmp_path / "n.yaml")
    with pytest.raises(AnnotationError, match="cannot be read"):
        read_class_names(tmp_path / "none.txt")
