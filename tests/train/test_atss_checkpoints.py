"""Checkpoints of ATSS: recognized by their keys at full size, and told from heads that look alike by what was said."""

from __future__ import annotations

import logging

import pytest
import torch

from gfl_edge.errors import CheckpointError, InputError
from tests.support.mmdet_atss import SMALL
from train.describe import Wanted, load_described
from train.models.gfl import GFL, GFLConfig
from train.models.published import build_model, model_files, read_model_file
from train.weights.loading import load_detector
from train.weights.mmdet_config import read_mmdet_config

CONFIG = """
model = dict(
    backbone=dict(depth=50, type='ResNet'),
    bbox_head=dict(
        anchor_generator=dict(
            octave_base_scale=8, ratios=[1.0], scales_per_octave=1, strides=[8, 16, 32, 64, 128],
            type='AnchorGenerator'),
        bbox_coder=dict(
            target_means=[0.0, 0.0, 0.0, 0.0], target_stds=[0.1, 0.1, 0.2, 0.2], type='DeltaXYWHBBoxCoder'),
        num_classes=3, stacked_convs=2, type='ATSSHead'),
    data_preprocessor=dict(bgr_to_rgb=True, mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
    test_cfg=dict(
        max_per_img=50, min_bbox_size=0, nms=dict(iou_threshold=0.5, type='nms'), nms_pre=1000, score_thr=0.1))
test_pipeline = [dict(keep_ratio=True, scale=(250, 120), type='Resize')]
"""
NAMES = ("cell", "plate", "no")

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return GFL(GFLConfig("atss", quality="centerness", regression="delta", **SMALL)).eval()


@pytest.fixture
def save(network, tmp_path):
    def write(config):
        path = tmp_path / "atss_r50_fpn_1x_custom.pth"
        meta = {"cfg": config, "dataset_meta": {"classes": NAMES}}
        torch.save({"meta": meta, "state_dict": network.state_dict()}, path)
        return path

    return write


@pytest.mark.parametrize("name", [name for name in model_files() if name.startswith("atss")])
def test_published_checkpoints_are_recognized(name):
    """Whose keys and shapes are mmdetection's, see tests/train/test_shipped_models.py; every one is accounted for."""
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in build_model(name).state_dict().items()}
    state = {key: torch.rand([*shape[:1], *[1] * (len(shape) - 1)]).expand(shape) for key, shape in shapes.items()}
    assert load_detector(state).config == read_model_file(name).architecture
    state["bbox_head.atss_reg.surprise"] = torch.rand(1)
    del state["bbox_head.scales.2.scale"]
    with pytest.raises(CheckpointError, match=r"does not fit atss: .*atss_reg\.surprise"):
        load_detector(state)


def test_what_its_configuration_says_is_taken(network, save):
    loaded, spec = load_described(save(CONFIG))
    assert loaded.config == network.config
    assert (spec.name, spec.family, spec.reg_max) == ("atss-r50-128x256", "atss", 0)
    assert (spec.class_names, spec.resize) == (NAMES, "fit")
    assert (spec.score_threshold, spec.iou_threshold) == (pytest.approx(0.01), 0.5)


def test_without_a_configuration(network, tmp_path):
    torch.save(network.state_dict(), tmp_path / "plain.pth")
    _, spec = load_described(tmp_path / "plain.pth", Wanted(class_names=NAMES))
    assert (spec.name, spec.point_offset, spec.iou_threshold) == ("atss-r50-800x1344", 0.0, 0.6)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("ATSSHead", "PAAHead", r"bbox_head\.type is 'PAAHead', expected 'ATSSHead'"),
        ("ATSSHead", "mmdet.LADHead", r"bbox_head\.type is 'mmdet\.LADHead'"),
        ("scale=8", "scale=4", r"octave_base_scale is 4, expected 8\.0"),
        ("octave_base_scale=8", "scales=[8, 16]", r"anchor_generator\.scales is \[8, 16\], expected \[8\.0\]"),
        ("scales_per_octave=1", "scales_per_octave=3", r"scales_per_octave is 3, expected 1"),
        ("ratios=[1.0]", "ratios=[0.5, 1.0]", r"ratios is \[0\.5, 1\.0\]"),
        ("ratios=[1.0]", "ratios=[1.0], center_offset=0.5", r"center_offset is 0\.5, expected 0\.0"),
        ("ratios=[1.0]", "ratios=[1.0], base_sizes=[9]", r"base_sizes is \[9\], expected nothing"),
        ("[0.1, 0.1, 0.2, 0.2]", "(1.0, 1.0, 1.0, 1.0)", r"target_stds is \[1\.0, 1\.0, 1\.0, 1\.0\], expected \[0\.1"),
        ("DeltaXYWHBBoxCoder", "TBLRBBoxCoder", r"bbox_coder\.type is 'TBLRBBoxCoder'"),
    ],
)
def test_a_head_that_computes_something_else_of_the_same_keys_is_refused(save, tmp_path, old, new, message):
    assert old in CONFIG
    text = CONFIG.replace(old, new)
    with pytest.raises(CheckpointError, match=rf"custom\.pth \(meta\): model\..*{message}"):
        load_described(save(text))
    (tmp_path / "other.py").write_text(text)
    with pytest.raises(CheckpointError, match=rf"other\.py: .*{message}"):
        read_mmdet_config(tmp_path / "other.py")


def test_what_a_configuration_leaves_to_be_computed_is_let_pass(save, caplog):
    caplog.set_level(logging.WARNING)
    _, spec = load_described(save(CONFIG.replace("octave_base_scale=8", "octave_base_scale=4 * 2")))
    assert spec.iou_threshold == 0.5
    assert not caplog.records


def test_claims_are_those_of_every_head(save):
    with pytest.raises(InputError, match=r"bbox_head\.stacked_convs is 4, but the weights of .* have 2"):
        load_described(save(CONFIG.replace("stacked_convs=2", "stacked_convs=4")))


def test_several_anchors_per_cell_and_other_qualities_are_refused(network):
    state = dict(network.state_dict())
    nine = {"bbox_head.atss_reg.weight": torch.rand(36, 32, 3, 3), "bbox_head.atss_reg.bias": torch.rand(36)}
    with pytest.raises(CheckpointError, match="an ATSS of 9 anchors per cell: expected one"):
        load_detector(state | nine)
    state["bbox_head.atss_iou.weight"] = state.pop("bbox_head.atss_centerness.weight")  # of DDOD
    with pytest.raises(CheckpointError, match=r"no checkpoint of .*ATSS: expected the keys .*atss_centerness\.weight"):
        load_detector(state)


def test_another_family_is_named(network):
    with pytest.raises(CheckpointError, match="is a atss checkpoint, gfl was requested"):
        load_detector(network.state_dict(), family="gfl")
