"""Checkpoints of GFL: recognized by their keys, complete, and read without running what is pickled in them."""

from __future__ import annotations

import json
import os
import pickle
import sys
import types
from collections import OrderedDict

import numpy as np
import pytest
import torch

from gfl_edge.adopt.families import IMAGENET_MEAN_BGR, IMAGENET_STD_BGR
from gfl_edge.errors import CheckpointError
from train.models.efficientnet_lite import EfficientNetLite0
from train.models.gfl import GFL, GFLConfig
from train.models.nanodet import NanoDet, NanoDetConfig
from train.models.published import model_files, read_model_file
from train.weights.imagenet import load_backbone
from train.weights.loading import load_detector
from train.weights.unwrapping import read_state_dict

SMALL = {"base_channels": 16, "neck_channels": 64, "head_channels": 64}
GFL_NAMES = [name for name in model_files() if name.startswith("gfl-")]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def small():
    """A small GFL with random weights; its backbone's residuals are not zero."""
    torch.manual_seed(0)
    return randomized(GFL(GFLConfig(num_classes=3, **SMALL))).eval()


def randomized(detector):
    for value in detector.state_dict().values():
        if value.is_floating_point():
            value.normal_(std=0.1).abs_()
    return detector


def same_weights(mine, theirs):
    theirs = theirs.state_dict()
    return all(torch.equal(value, theirs[key]) for key, value in mine.state_dict().items())


# --- architecture ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GFL_NAMES)
def test_published_checkpoints_are_recognized(name, data):
    model = read_model_file(name)
    keys = json.loads(data(f"../fixtures/mmdet_keys/{model.published.name}.json").read_text())
    state = {key: torch.rand([*shape[:1], *[1] * (len(shape) - 1)]).expand(shape) for key, shape in keys.items()}
    state["bbox_head.integral.project"] = torch.arange(17.0)
    assert load_detector(state).config == model.architecture


@pytest.mark.parametrize(
    "fields",
    [
        {"family": "gflv2", "reg_max": 12, "stacked_convs": 2},
        {"depth": 18, "strides": (8, 16, 32, 64)},
        {"depth": 34, "head_channels": 32},
        {"depth": 101, "groups": 8, "base_width": 4, "dcn": "v2", "dcn_stages": (True, False, True, False)},
        {"backbone": "efficientnet-lite0", "base_channels": 64, "neck": "pan", "strides": (8, 16, 32)},
        {"depth": 18, "quality": "centerness", "regression": "dirac"},
        {"family": "atss", "depth": 34, "quality": "centerness", "regression": "delta", "stacked_convs": 3},
    ],
)
def test_every_architecture_survives_a_round_trip(fields):
    config = GFLConfig(**{**SMALL, "num_classes": 3, **fields})
    detector = GFL(config).eval()
    loaded = load_detector(detector.state_dict())
    assert loaded.config == config
    assert not loaded.training
    assert same_weights(detector, loaded)


def test_a_resnext_of_one_channel_per_group_keeps_its_groups():
    config = GFLConfig(groups=16, base_width=1, num_classes=3, **SMALL)
    assert load_detector(GFL(config).state_dict()).config == config


def test_wrappers_preprocessor_and_old_names_of_offsets():
    config = GFLConfig(num_classes=3, dcn="v1", dcn_stages=(False, False, False, True), **SMALL)
    detector = GFL(config).eval()
    state = {
        "module." + key.replace(".conv2.conv_offset.", ".conv2_offset."): value
        for key, value in detector.state_dict().items()
    }
    state["data_preprocessor.mean"] = torch.zeros(3, 1, 1)
    assert same_weights(detector, load_detector(state))


def test_missing_unexpected_and_misshapen_keys_are_listed(small):
    state = dict(small.state_dict())
    del state["bbox_head.scales.2.scale"]
    del state["backbone.layer2.1.bn2.weight"]
    state["bbox_head.surprise"] = torch.zeros(1)
    state["neck.fpn_convs.1.conv.bias"] = torch.zeros(7)
    with pytest.raises(CheckpointError) as caught:
        load_detector(state)
    message = str(caught.value)
    assert "state dict does not fit gfl: " in message
    assert "backbone.layer2.1.bn2.weight" in message
    assert "bbox_head.surprise" in message
    assert "neck.fpn_convs.1.conv.bias [7] (expected [64])" in message


def test_half_weights_become_float(small):
    loaded = load_detector({key: value.half() for key, value in small.state_dict().items()})
    assert {value.dtype for value in loaded.parameters()} == {torch.float32}


def without_counters(state):
    return {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}


def test_counters_may_be_missing(small):
    loaded = load_detector(without_counters(small.state_dict()))
    assert int(loaded.backbone.bn1.num_batches_tracked) == 0


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("bbox_head.gfl_cls.weight", torch.zeros(3)),
        ("bbox_head.gfl_reg.weight", torch.tensor(1.0)),
        ("backbone.layer1.0.conv2.weight", torch.zeros(16, 0, 3, 3)),
        ("neck.lateral_convs.0.conv.weight", torch.tensor(1.0)),
    ],
)
def test_impossible_shapes(small, key, value):
    with pytest.raises(CheckpointError, match="cannot be read off its keys"):
        load_detector({**small.state_dict(), key: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bbox_head.integral.project": torch.linspace(0, 1, 17)}, r"expected 0\.\.16"),
        ({"backbone.layer4.0.conv2.conv_offset.weight": torch.zeros(36, 128, 3, 3)}, r"\[36\] offset planes"),
        ({"backbone.layer2.9.conv1.weight": torch.zeros(1)}, "unknown backbone of 3, 5, 6, 3 blocks"),
        ({"bbox_head.gfl_cls.weight": torch.zeros(3, 40, 3, 3)}, "head_channels 40 is no multiple"),
    ],
)
def test_networks_that_are_not_ours(small, change, message):
    with pytest.raises(CheckpointError, match=message):
        load_detector({**small.state_dict(), **change})


def test_another_family_than_asked_for(small):
    with pytest.raises(CheckpointError, match="is a gfl checkpoint, gflv2 was requested"):
        load_detector(small.state_dict(), family="gflv2")


# --- pretrained backbones --------------------------------------------------------------------------------------------


def test_torchvision_weights_fill_the_backbone_alone(small, tmp_path):
    pretrained = {**small.backbone.state_dict(), "fc.weight": torch.zeros(10, 512), "fc.bias": torch.zeros(10)}
    path = tmp_path / "resnet50.pth"
    torch.save(without_counters(pretrained), path)
    detector = GFL(GFLConfig(num_classes=7, dcn="v2", dcn_stages=(False, False, True, True), **SMALL))
    head = detector.bbox_head.gfl_cls.weight.clone()
    load_backbone(detector, path)
    assert torch.equal(detector.bbox_head.gfl_cls.weight, head)
    assert torch.equal(detector.backbone.layer4[1].conv2.weight, small.backbone.layer4[1].conv2.weight)
    assert not detector.backbone.layer4[1].conv2.conv_offset.weight.any()
    assert torch.equal(detector.backbone.bn1.running_var, small.backbone.bn1.running_var)


def test_other_classifiers_are_left_out():
    shufflenet = NanoDet(NanoDetConfig("nanodet", stage_channels=(16, 32, 64), neck_channels=32))
    load_backbone(shufflenet, {**shufflenet.backbone.state_dict(), "conv5.0.weight": torch.zeros(1)})
    light = GFL(GFLConfig(backbone="efficientnet-lite0", num_classes=3))
    classifier = {key: torch.zeros(1) for key in ("_conv_head.weight", "_bn1.running_mean", "_fc.bias")}
    load_backbone(light, {**light.backbone.state_dict(), **classifier})


def test_efficientnet_lites_own_normalization_moves_into_its_stem():
    torch.manual_seed(0)
    published = randomized(EfficientNetLite0()).eval()
    light = GFL(GFLConfig(backbone="efficientnet-lite0", num_classes=3)).eval()
    load_backbone(light, {**published.state_dict(), "_fc.weight": torch.zeros(1000, 1280)})
    rgb = torch.randint(0, 256, (1, 3, 32, 32)).float()
    mean, std = (torch.tensor(values[::-1])[:, None, None] for values in (IMAGENET_MEAN_BGR, IMAGENET_STD_BGR))

    def stem(backbone, x):
        return backbone._bn0(backbone._conv_stem(x))[..., :-1, :-1]  # without the cells that see padding

    with torch.no_grad():
        expected = stem(published, (rgb - 127) / 128)
        torch.testing.assert_close(stem(light.backbone, (rgb - mean) / std), expected, atol=1e-4, rtol=1e-4)


def test_a_backbone_of_a_whole_detector_is_taken_as_it_is(small):
    detector = GFL(GFLConfig(num_classes=7, **SMALL))
    load_backbone(detector, small.state_dict())
    assert same_weights(small.backbone, detector.backbone)


def test_a_backbone_that_does_not_fit(small):
    state = small.backbone.state_dict()
    del state["layer1.0.conv1.weight"]
    with pytest.raises(CheckpointError, match=r"backbone ResNet: 1 keys missing: layer1\.0\.conv1\.weight; .*surprise"):
        load_backbone(small, {**state, "surprise": torch.zeros(1)})


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def mmengine(monkeypatch):
    """Classes of a package that is not installed when the file is read."""
    names = ("mmengine", "mmengine.logging", "mmengine.logging.message_hub")
    modules = [types.ModuleType(name) for name in names]
    hub = type("MessageHub", (), {"__module__": names[-1], "__qualname__": "MessageHub"})
    ordered = type("ConfigDict", (dict,), {"__module__": names[-1], "__qualname__": "ConfigDict"})
    modules[-1].MessageHub, modules[-1].ConfigDict = hub, ordered
    with monkeypatch.context() as patch:
        for name, module in zip(names, modules, strict=True):
            patch.setitem(sys.modules, name, module)
        yield modules[-1]


def mmdet_content(mmengine, state):
    """What a file of mmdetection 3.x holds beside its tensors."""
    hub = mmengine.MessageHub()
    hub.log_scalars = OrderedDict(loss=np.float64(0.5))
    return {
        "meta": {"epoch": 12, "cfg": mmengine.ConfigDict(a={"b": 1}), "time": np.float32(1.5), "seed": {3, 4}},
        "state_dict": OrderedDict(state),
        "message_hub": {"log_scalars": hub, "history": [hub, np.arange(3), np.dtype("int64")]},
        "optimizer": {"param_groups": [{"lr": np.float64(0.01)}], "state": {0: {"momentum_buffer": torch.ones(2)}}},
    }


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
def test_files_of_mmdetection_load_and_their_objects_are_named(mmengine, small, tmp_path, monkeypatch, caplog, zipped):
    path = tmp_path / "epoch_12.pth"
    torch.save(
        mmdet_content(mmengine, small.state_dict()), path, _use_new_zipfile_serialization=zipped, pickle_protocol=2
    )
    for name in [name for name in sys.modules if name.startswith("mmengine")]:
        monkeypatch.delitem(sys.modules, name)
    loaded = load_detector(path)
    assert same_weights(small, loaded)
    assert "mmengine.logging.message_hub.MessageHub" in caplog.text
    assert "mmengine" not in sys.modules


class Evil:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


ATTACKS = {
    "system": lambda: Evil(os.system, "touch pwned"),
    "eval": lambda: Evil(eval, "open('pwned', 'w')"),
    "nested": lambda: {"a": [Evil(exec, "open('pwned', 'w')")]},
    "getattr": lambda: Evil(getattr, Evil(__import__, "os"), "system"),
    "torch": lambda: Evil(torch.load, "other.pth"),
}


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
def test_code_beside_the_state_dict_is_skipped_and_named(small, tmp_path, monkeypatch, caplog, attack, zipped):
    path = tmp_path / "evil.pth"
    content = {"state_dict": small.state_dict(), "hook": ATTACKS[attack]()}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    monkeypatch.chdir(tmp_path)
    assert same_weights(small, load_detector(path))
    assert not (tmp_path / "pwned").exists()
    assert "skipped objects that are no tensors" in caplog.text


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (lambda evil: {"state_dict": {"a": torch.zeros(1), "b": evil}}, r"posix\.system|nt\.system"),
        (lambda evil: {"state_dict": evil}, r"posix\.system|nt\.system"),
        (lambda evil: evil, r"posix\.system|nt\.system"),
        (lambda evil: torch.nn.Linear(1, 1), r"torch\.nn\.modules\.linear\.Linear"),
    ],
    ids=["value", "state dict", "file", "whole network"],
)
def test_code_in_place_of_tensors_is_refused_by_name(tmp_path, monkeypatch, content, name):
    monkeypatch.chdir(tmp_path)
    torch.save(content(Evil(os.system, "touch pwned")), "evil.pth")
    with pytest.raises(CheckpointError, match=rf"contains the Python object ({name}) .*refused"):
        read_state_dict("evil.pth")
    assert not (tmp_path / "pwned").exists()


def test_a_plain_pickle_is_no_checkpoint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps(Evil(os.system, "touch pwned"), protocol=2))
    with pytest.raises(CheckpointError, match="truncated or not a PyTorch checkpoint"):
        read_state_dict(path)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*TorchScript archive")
def test_torchscript_is_refused(tmp_path):
    path = tmp_path / "scripted.pt"
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), path)
    with pytest.raises(CheckpointError, match=r"is a TorchScript program .* save only the tensors"):
        read_state_dict(path)


def test_parameters_lose_their_hooks(tmp_path):
    state = {"w": torch.nn.Parameter(torch.arange(6.0).reshape(2, 3).T)}
    torch.save({"state_dict": state, "meta": np.float64(1)}, tmp_path / "x.pth")
    loaded = read_state_dict(tmp_path / "x.pth")
    assert torch.equal(loaded["w"], state["w"])
