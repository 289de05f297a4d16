"""What PaddleDetection's infer_cfg.yml says of a PicoDet; nanodet's YAML is tried in test_adopt.py."""

from __future__ import annotations

import numpy as np
import pytest

from gfl_edge.adopt.config import read_config
from gfl_edge.adopt.run import AdoptRequest, adopt
from gfl_edge.errors import InputError
from tests.support.foreign_configs import PADDLE
from tests.support.foreign_onnx import Form, foreign_onnx

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def read(folder, *changes):
    text = PADDLE
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = folder / "infer_cfg.yml"
    path.write_text(text)
    return read_config(path)


def test_what_it_says(tmp_path):
    found = read(tmp_path)
    assert (found.class_names, found.input_hw, found.strides) == (
        ("person", "helmet", "vest"),
        (64, 160),
        (8, 16, 32, 64),
    )
    choices = found.choices
    assert (choices.family, choices.resize, choices.channel_order) == ("picodet", "stretch-cubic", "rgb")
    np.testing.assert_allclose(choices.mean, MEAN)
    np.testing.assert_allclose(choices.std, STD)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (("interp: 2", "interp: 1"), "stretch"),
        (("interp: 2", "interp: 0"), None),  # nearest, which nothing here computes
        (("keep_ratio: false", "keep_ratio: true"), None),
        (("interp: 2\n  keep_ratio: false", "interp: 1\n  keep_ratio: true"), "fit"),
    ],
)
def test_the_resize_rule(tmp_path, change, rule):
    assert read(tmp_path, change).choices.resize == rule


@pytest.mark.parametrize(
    ("change", "mean", "std"),
    [
        (("is_scale: true", "is_scale: false"), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        (("is_scale: true", "is_scale: true\n  norm_type: none"), (0, 0, 0), (255, 255, 255)),
        (("type: NormalizeImage", "type: Other"), None, None),  # it is in the graph
    ],
)
def test_the_normalization(tmp_path, change, mean, std):
    choices = read(tmp_path, change).choices
    assert (choices.mean is None) == (mean is None)
    if mean is not None:
        np.testing.assert_allclose([choices.mean, choices.std], [mean, std])


def test_with_post_processing_the_graph_shows_the_family(tmp_path):
    assert read(tmp_path, ("arch: PicoDet", "arch: GFL")).choices.family is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("arch: PicoDet", "arch: PPYOLOE"), "is of the architecture PPYOLOE, expected PicoDet or GFL"),
        (("arch: PicoDet", "arch: 3"), "arch is 3, expected a text"),
        (("- type: Permute", "- Permute"), "Preprocess is .*expected a list of steps"),
        (("  - 64\n  - 160", "  - 64"), "Preprocess, Resize: target_size is"),
        (("std: [0.229,", "std: [0,"), "Preprocess, NormalizeImage: std is"),
        (("- vest", "- person"), "person"),
    ],
)
def test_what_is_refused(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        read(tmp_path, change)


def test_a_picodet_is_adopted_by_it(tmp_path):
    read(tmp_path)
    source = tmp_path / "picodet.onnx"
    form = Form(levels=4, input_hw=(64, 160), activation="hard swish", decoded=True)
    source.write_bytes(foreign_onnx(form).SerializeToString())
    request = AdoptRequest(source=source, output=tmp_path / "m.onnx", config=tmp_path / "infer_cfg.yml")
    spec = adopt(request).spec
    assert (spec.family, spec.resize, spec.class_names) == ("picodet", "stretch-cubic", ("person", "helmet", "vest"))
    np.testing.assert_allclose([spec.mean_bgr, spec.std_bgr], [MEAN[::-1], STD[::-1]])
    read(tmp_path, ("[8, 16, 32, 64]", "[8, 16, 32]"))
    with pytest.raises(
        InputError, match=r"fpn_stride is \[8, 16, 32\], but .* has levels of strides \[8, 16, 32, 64\]"
    ):
        adopt(request)
