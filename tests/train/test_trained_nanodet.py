"""The YAML of a run of nanodet decides how its checkpoint is exported, and never contradicts it."""

from __future__ import annotations

import copy
import re
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
import yaml

from export import to_onnx
from gfl_edge.errors import InputError
from gfl_edge.ops.onnx_graph import open_session
from gfl_edge.spec import CANDIDATE_NAMES, INPUT_NAME, read_spec
from tests.support.foreign_configs import NANODET
from train.describe import Wanted, load_described
from train.models.nanodet import NANODET_G, NanoDet, NanoDetConfig
from train.weights.nanodet_config import config_beside, read_nanodet_config

pytestmark = pytest.mark.usefixtures("one_thread", "few_blocks")

NAMES = ("person", "no", "forklift")
MEAN, STD = (110.0, 120.0, 130.0), (60.0, 61.0, 62.0)


@pytest.fixture(scope="module")
def network(few_blocks):
    """A NanoDet-Plus-m 0.5x of three classes with random weights that answer."""
    torch.manual_seed(0)
    detector = NanoDet(NanoDetConfig("nanodet-plus", num_classes=3, stage_channels=(48, 96, 192))).eval()
    for module in detector.head.gfl_cls:  # a fresh head is made to say nothing
        torch.nn.init.normal_(module.weight, std=0.1)
        torch.nn.init.zeros_(module.bias)
    return detector


@pytest.fixture
def run_folder(network, tmp_path):
    """What a run of nanodet leaves: averaged weights beside others, the best in a folder of its own."""
    averaged = {f"avg_model.{key}": value for key, value in network.state_dict().items()}
    raw = {f"model.{key}": value * 0.5 for key, value in network.state_dict().items()}
    (tmp_path / "model_best").mkdir()
    torch.save({"epoch": 9, "state_dict": {**raw, **averaged}}, tmp_path / "model_best" / "model_best.ckpt")
    (tmp_path / "train_cfg.yml").write_text(NANODET)
    return tmp_path


def altered(place, value):
    """The configuration with another value at a dotted place; None takes it out."""
    config = yaml.safe_load(NANODET)
    config["class_names"] = config["data"]["val"]["class_names"] = list(NAMES)
    *folders, last = place.split(".")
    entry = config
    for name in folders:
        entry = entry[name]
    entry[last] = copy.deepcopy(value)
    if value is None:
        del entry[last]
    return yaml.safe_dump(config)


def test_a_custom_checkpoint_is_exported_as_it_was_trained(network, run_folder, capsys):
    output = run_folder / "custom.onnx"
    weights = run_folder / "model_best" / "model_best.ckpt"
    assert to_onnx.main(["--weights", str(weights), "--nms", "none", "-o", str(output)]) == 0
    spec = read_spec(output)
    assert (spec.class_names, spec.input_hw, spec.resize) == (NAMES, (192, 256), "letterbox")
    assert (spec.mean_bgr, spec.std_bgr) == (MEAN, STD)
    assert spec.name == "nanodet-plus-m-0.5x-192x256"
    log = capsys.readouterr().err
    assert f"trained with {run_folder / 'train_cfg.yml'}: 3 classes (person, no, forklift), input of 192 x 256" in log
    assert "letterbox, mean 110, 120, 130, std 60, 61, 62 (BGR)" in log
    images = np.random.default_rng(0).integers(0, 256, (1, 192, 256, 3), np.uint8)
    _, scores = open_session(onnx.load(output)).run(CANDIDATE_NAMES, {INPUT_NAME: images})
    normalized = torch.from_numpy((images - np.float32(MEAN)) / np.float32(STD)).permute(0, 3, 1, 2)
    with torch.no_grad():
        expected = torch.cat([level.flatten(2) for level in network(normalized)[0]], 2).sigmoid().permute(0, 2, 1)
    np.testing.assert_allclose(scores, expected.numpy(), atol=1e-4)


def test_where_a_configuration_is_found(tmp_path):
    weights = tmp_path / "model_best" / "x.ckpt"
    weights.parent.mkdir()
    assert config_beside(weights) is None
    (tmp_path / "other.yml").write_text("a: 1")
    assert config_beside(weights) is None
    for path in (tmp_path / "train_cfg.yml", weights.parent / "train_cfg.yml", weights.with_suffix(".yml")):
        path.write_text(NANODET)
        assert config_beside(weights) == path


def test_what_is_asked_for_counts_first_and_is_logged(run_folder, caplog):
    caplog.set_level("INFO")
    other = run_folder / "other.yml"
    other.write_text(altered("data.val.input_size", [320, 64]))
    weights = run_folder / "model_best" / "model_best.ckpt"
    assert load_described(weights, Wanted(config=other))[1].input_hw == (64, 320)
    wanted = Wanted(class_names=("a", "b", "c"), input_hw=(96, 64))
    spec = load_described(weights, wanted)[1]
    assert (spec.class_names, spec.input_hw, spec.resize, spec.mean_bgr) == (
        ("a", "b", "c"),
        (96, 64),
        "letterbox",
        MEAN,
    )
    assert f"--classes replaces the 3 class names of {run_folder / 'train_cfg.yml'}" in caplog.text
    assert "input of 96 x 64 that was asked for replaces 192 x 256 of" in caplog.text


def test_without_a_configuration_the_guesses_are_named(run_folder, caplog):
    (run_folder / "train_cfg.yml").unlink()
    spec = load_described(run_folder / "model_best" / "model_best.ckpt")[1]
    assert (spec.class_names, spec.input_hw) == (("class_0", "class_1", "class_2"), (416, 416))
    assert "so they are numbered, nor how the detector was trained: the input is 416 x 416. Give" in caplog.text


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("model.arch.head.num_classes", 4, r"num_classes is 4, but the weights of .*best\.ckpt have 3"),
        ("model.arch.head.reg_max", 10, "reg_max is 10, but .* have 7"),
        ("model.arch.head.strides", [8, 16, 32], r"strides is \[8, 16, 32\], but .* have \[8, 16, 32, 64\]"),
        ("model.arch.head.stacked_convs", 3, "stacked_convs is 3, but .* have 2"),
        ("model.arch.fpn.out_channels", 128, "out_channels is 128, but .* have 96"),
        ("model.arch.fpn.name", "PAN", "fpn.name is 'nanodet', but .* have 'nanodet-plus'"),
        ("model.arch.backbone.model_size", "1.5x", r"model_size is \[176, 352, 704\], but .* have \[48, 96, 192\]"),
        (
            "model.arch.backbone.name",
            "GhostNet",
            "is 'GhostNet', expected one of ShuffleNetV2, CustomCspNet, EfficientNetLite, RepVGG",
        ),
        ("model.arch.backbone.name", "CustomCspNet", "fpn.name is 'GhostPAN', expected one of PAN"),
        ("model.arch.backbone.net_cfg", [["Conv", 3, 32, 3, 2]], "net_cfg is .*expected the layers of nanodet-g.yml"),
        ("model.arch.backbone.net_cfg", [5], "net_cfg is .*expected the layers of nanodet-g.yml"),
        ("model.arch.head.activation", "ReLU6", "head.activation is 'ReLU6', expected LeakyReLU"),
        ("class_names", ["a", "b"], "2 class names for a checkpoint of 3 classes. Give the right ones with --classes"),
        ("class_names", ["a", "b", "a"], r"class_names\[2\]: the class 'a' comes twice"),
        ("class_names", {"a": 1}, "class_names is .*expected a list of class names"),
        ("data.val.input_size", [300, 200], "input size 200 x 300: .* Nearest: --input-size 192 288"),
        ("data.val.input_size", [320], r"input_size is \[320\], expected 2 whole numbers"),
        ("data.val.input_size", [320, "320px"], "expected 2 whole numbers"),
        ("data.val.keep_ratio", "maybe", "keep_ratio is 'maybe', expected true or false"),
        ("data.val.pipeline.normalize", [[1, 2, 3], [1, 0, 1]], "std is .*expected three numbers.*above 0"),
        ("data.val.pipeline.normalize", [1, 2, 3], r"expected \[mean, std\]"),
        ("data.val", None, r"is no configuration of nanodet: expected model\.arch\.head and data\.val"),
    ],
)
def test_contradictions_and_slips_are_errors_that_name_both(run_folder, capsys, place, value, message):
    config = run_folder / "train_cfg.yml"
    config.write_text(altered(place, value))
    output = run_folder / "x.onnx"
    weights = run_folder / "model_best" / "model_best.ckpt"
    assert to_onnx.main(["--weights", str(weights), "-o", str(output)]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.search(message, error)
    assert "train_cfg.yml" in error or "--input-size" in error
    assert not output.exists()


def test_names_given_instead_of_a_wrong_list(run_folder):
    (run_folder / "train_cfg.yml").write_text(altered("class_names", ["a", "b"]))
    weights = run_folder / "model_best" / "model_best.ckpt"
    assert load_described(weights, Wanted(class_names=NAMES))[1].class_names == NAMES


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe\x00", "train_cfg.yml"),
        (b"a: [", "is no YAML"),
        (b"", "is no configuration of nanodet"),
        (b"- 1", "is no configuration of nanodet"),
        (b"model: !!python/object/apply:os.system ['touch pwned']", "is no configuration of nanodet"),
        (b"a: 1\na: 2", "'a' comes twice"),
        (b"a: &a [*a]", "no configuration: more than"),
        (
            b"a0: &a0 [1,1]\n" + b"".join(b"a%d: &a%d [*a%d,*a%d]\n" % (i, i, i - 1, i - 1) for i in range(1, 40)),
            "more than",
        ),
        (b"#" * ((1 << 20) + 1), "characters"),
    ],
)
def test_files_that_are_no_configuration(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "train_cfg.yml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_nanodet_config(path)
    assert not (tmp_path / "pwned").exists()


def test_merge_keys_and_defaults_of_nanodet(tmp_path):
    path = tmp_path / "x.yml"
    path.write_text(
        "base: &base {input_size: [64, 32], keep_ratio: False}\n"
        "model: {arch: {head: {num_classes: 1}}}\n"
        "class_names: person\n"
        "data: {val: {<<: *base, input_size: [96, 64]}}\n"
    )
    trained = read_nanodet_config(path)
    assert (trained.class_names, trained.input_hw, trained.resize) == (("person",), (64, 96), "stretch")
    path.write_text("model: {arch: {head: {num_classes: 1}}}\ndata: {val: {input_size: [96, 64]}}\n")
    trained = read_nanodet_config(path)
    assert (trained.class_names, trained.resize, trained.mean_bgr) == (None, "letterbox", None)


CSP_LAYERS = [
    ["Conv", 3, 16, 3, 2],
    ["MaxPool", 3, 2],
    ["CspBlock", 16, 1, 3, 1],
    ["CspBlock", 32, 2, 3, 2],
    ["CspBlock", 64, 2, 3, 2],
    ["CspBlock", 128, 3, 3, 2],
]


def test_nanodet_g_of_another_width(tmp_path):
    detector = NanoDet(replace(NANODET_G, num_classes=3, stage_channels=(64, 128, 256), neck_channels=32))
    torch.save({"state_dict": detector.state_dict()}, tmp_path / "x.ckpt")
    config = yaml.safe_load(altered("model.arch.backbone", {"name": "CustomCspNet", "net_cfg": CSP_LAYERS}))
    config["model"]["arch"]["fpn"] = {"name": "PAN", "out_channels": 32}
    config["model"]["arch"]["head"] |= {"strides": [8, 16, 32], "reg_max": 10, "stacked_convs": 1}
    (tmp_path / "x.yml").write_text(yaml.safe_dump(config))
    found, spec = load_described(tmp_path / "x.ckpt")
    assert found.config == detector.config
    assert (spec.name, spec.class_names) == ("nanodet-g-0.5x-192x256", NAMES)
    config["model"]["arch"]["backbone"]["net_cfg"][0][2] = 32
    (tmp_path / "x.yml").write_text(yaml.safe_dump(config))
    with pytest.raises(InputError, match="net_cfg is"):
        load_described(tmp_path / "x.ckpt")
