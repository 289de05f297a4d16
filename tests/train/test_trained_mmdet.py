"""What mmdetection writes beside the weights decides how they are exported; its Python text is parsed, never run."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from gfl_edge.errors import InputError
from tests.support.foreign_configs import MMDET_V2, MMDET_V3
from train.describe import Wanted, load_described
from train.models.gfl import GFL, GFLConfig
from train.validation import Predictor
from train.weights.mmdet_config import read_mmdet_config

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = {"base_channels": 16, "neck_channels": 64, "head_channels": 64, "stacked_convs": 1}
NAMES = ("cell", "plate", "no")


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return GFL(GFLConfig(num_classes=3, **SMALL)).eval()


@pytest.fixture
def save(network, tmp_path):
    def write(meta):
        path = tmp_path / "epoch_12.pth"
        torch.save({"meta": meta, "state_dict": network.state_dict()}, path)
        return path

    return write


def test_a_checkpoint_of_mmdetection_3(save, caplog):
    caplog.set_level("INFO")
    # np.float64 beside the rest has the file read by the inert reader
    path = save({"cfg": MMDET_V3, "dataset_meta": {"classes": NAMES, "palette": [(1, 2, 3)]}, "time": np.float64(1)})
    _, spec = load_described(path)
    assert (spec.class_names, spec.input_hw, spec.resize) == (NAMES, (128, 256), "fit")
    assert (spec.mean_bgr, spec.std_bgr) == ((120.0, 110.0, 100.0), (52.0, 51.0, 50.0))
    assert (spec.score_threshold, spec.iou_threshold, spec.max_detections) == (0.1, 0.5, 50)
    assert (
        f"trained with {path} (meta): 3 classes (cell, plate, no), input of 128 x 256 (height x width)" in caplog.text
    )


def test_a_checkpoint_of_mmdetection_2_that_takes_bgr(network, save):
    loaded, spec = load_described(save({"config": MMDET_V2, "CLASSES": list(NAMES), "mmdet_version": "2.28"}))
    assert (spec.class_names, spec.input_hw, spec.resize) == (NAMES, (96, 256), "stretch")
    assert (spec.mean_bgr, spec.std_bgr) == ((103.53, 116.28, 123.675), (1.0, 1.0, 1.0))
    images = torch.randint(0, 256, (1, 96, 256, 3), dtype=torch.uint8)
    with torch.no_grad():
        expected = network((images.float() - torch.tensor(spec.mean_bgr)).permute(0, 3, 1, 2))[0]
    scores, _ = Predictor(loaded, spec, torch.device("cpu"))(images)
    flat = torch.cat([level.flatten(2) for level in expected], 2).sigmoid().transpose(1, 2)
    np.testing.assert_allclose(scores, flat.numpy(), atol=1e-5)


@pytest.mark.parametrize(
    "meta",
    [
        {"CLASSES": NAMES},
        {"dataset_meta": {"CLASSES": NAMES}},
        {"dataset_meta": {"classes": list(NAMES)}, "cfg": None},
    ],
)
def test_class_names_without_a_configuration(save, meta):
    _, spec = load_described(save(meta))
    assert (spec.class_names, spec.input_hw, spec.iou_threshold) == (NAMES, (800, 1344), 0.6)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("model = dict(", "is no Python"),
        ("(" * 500, "is no Python"),
        ("x = 1", "no readable entry 'model'"),
        ("model = build()", "no readable entry 'model'"),
        ("_base_ = 'other.py'\nmodel = dict()", "inherits from other"),
        ("model = dict(data_preprocessor=dict(mean=['a'] * 3, std=[0, 1, 1]))", None),
        ("model = dict(data_preprocessor=dict(mean=[1, 2], std=[1, 1, 1]))", r"mean is \[1, 2\], expected three"),
        ("model = dict(test_cfg=dict(score_thr=5))", "score_thr is 5, expected a number from 0 to 1"),
        ("#" * ((1 << 20) + 1), "characters"),
    ],
)
def test_a_configuration_that_cannot_be_read_is_named_and_left_out(save, caplog, text, reason):
    _, spec = load_described(save({"cfg": text, "dataset_meta": {"classes": NAMES}}))
    assert (spec.class_names, spec.input_hw, spec.score_threshold) == (NAMES, (800, 1344), 0.05)
    if reason:
        (message,) = [r.getMessage() for r in caplog.records if "are not taken from it" in r.getMessage()]
        assert "epoch_12.pth (meta)" in message
        assert re.search(reason, message)


def test_the_text_is_never_run(save, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    attack = "__import__('os').system('touch pwned')"
    text = (
        f"{attack}\nx = {attack}\nmodel = dict(a={attack}, bbox_head=dict(num_classes=3))\nfor i in [{attack}]: pass\n"
    )
    load_described(save({"cfg": text, "CLASSES": NAMES}))
    assert not (tmp_path / "pwned").exists()


def test_lists_that_double_forty_times(save):
    text = "a0 = [1, 1]\n" + "".join(f"a{i} = [a{i - 1}, a{i - 1}]\n" for i in range(1, 40))
    text += "model = dict(bbox_head=dict(num_classes=3), test_cfg=dict(score_thr=a39))\n"
    load_described(save({"cfg": text, "CLASSES": NAMES}))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("num_classes=3", "num_classes=4", r"bbox_head\.num_classes is 4, but the weights of .* have 3"),
        ("reg_max=16", "reg_max=8", r"bbox_head\.reg_max is 8, but .* have 16"),
        ("depth=50", "depth=101", r"backbone\.depth is 101, but .* have 50"),
        ("[8, 16, 32, 64, 128]", "[4, 8, 16, 32, 64]", r"strides is \[4, 8, 16, 32, 64\], but .* have \[8, 16"),
    ],
)
def test_a_configuration_that_contradicts_the_weights(save, old, new, message):
    with pytest.raises(InputError, match=message):
        load_described(save({"cfg": MMDET_V3.replace(old, new), "CLASSES": NAMES}))


def test_another_number_of_class_names(save):
    path = save({"CLASSES": ("a", "b")})
    with pytest.raises(
        InputError, match=r"\(meta\): 2 class names for a checkpoint of 3 classes\. Give the right ones"
    ):
        load_described(path)
    assert load_described(path, Wanted(class_names=NAMES))[1].class_names == NAMES
    with pytest.raises(InputError, match=r"1 class names for a checkpoint of 3 classes"):
        load_described(save({"CLASSES": "cell"}))  # ('cell') in a configuration is no tuple


def test_the_file_of_a_run_counts_before_the_checkpoint(save, tmp_path):
    config = tmp_path / "gfl.py"
    config.write_text(MMDET_V2)
    spec = load_described(save({"cfg": MMDET_V3, "dataset_meta": {"classes": NAMES}}), Wanted(config=config))[1]
    assert (spec.input_hw, spec.resize, spec.std_bgr) == ((96, 256), "stretch", (1.0, 1.0, 1.0))
    assert read_mmdet_config(config).class_names == NAMES
    config.write_text("_base_ = ['../gfl.py']\n" + MMDET_V2)
    with pytest.raises(InputError, match=r"gfl\.py inherits from .*work_dir"):
        read_mmdet_config(config)
