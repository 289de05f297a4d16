"""The other published NanoDets: their networks and checkpoints, against figures of the code that they come from.

``UPSTREAM`` holds what RangiLyu/nanodet (commit be9b4a9) has of each model as its configuration describes it: how many
keys, a digest of the keys with their shapes, and figures of its class and edge maps of small images, where weights and
images are those of :mod:`tests.support.seeded_weights`.
"""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from gfl_edge.errors import CheckpointError, InputError
from gfl_edge.zoo.catalogue import CATALOGUE
from tests.support.seeded_weights import figures, keys_digest, seeded_images, seeded_state
from train.config import read_config
from train.describe import architecture_name, default_hw, describe, find_preset
from train.distributed import Process
from train.models.batch_norm import fuse_batch_norm, unfuse_batch_norm
from train.models.nanodet import PUBLISHED, NanoDet
from train.models.published import build_model, read_model_file
from train.models.repvgg import merge_branches
from train.network import build_detector
from train.unfolding import neutral_norms, unfold_batch_norms
from train.weights.imagenet import load_backbone
from train.weights.loading import load_detector
from train.weights.nanodet_config import read_nanodet_config

UPSTREAM = json.loads(Path(__file__).with_name("upstream_relatives.json").read_text())
SIDE = {"nanodet-t-320": 320}
GAIN = {"nanodet-repvgg-a0-416": 0.6}  # three branches add up

pytestmark = pytest.mark.usefixtures("one_thread")


def upstream_state(name):
    """Our network's state dict with the keys that nanodet's has beside it."""
    with torch.device("meta"):
        network = build_model(name)
    state, config = network.state_dict(), network.config
    edges, channels = 4 * (config.reg_max + 1), config.neck_channels
    state["head.distribution_project.project"] = torch.arange(config.reg_max + 1.0)
    if config.family == "nanodet-plus":
        return state
    for level in range(3):  # never called
        state[f"head.gfl_reg.{level}.weight"] = torch.zeros(edges, channels, 1, 1)
        state[f"head.gfl_reg.{level}.bias"] = torch.zeros(edges)
    if config.family == "nanodet-t":
        state["fpn.transformer.linear.weight"] = torch.zeros(channels, channels)
        state["fpn.transformer.linear.bias"] = torch.zeros(channels)
    return state


@pytest.mark.parametrize("name", UPSTREAM)
def test_keys_and_maps_are_those_of_upstream(name):
    expected, state = UPSTREAM[name], upstream_state(name)
    assert (len(state), keys_digest(state)) == (expected["keys"], expected["keys_digest"])
    detector = load_detector({f"model.{key}": value for key, value in seeded_state(state, GAIN.get(name, 1.2)).items()})
    assert detector.config == read_model_file(name).architecture
    with torch.no_grad():
        maps = detector(seeded_images(SIDE.get(name, 64)))
    for found, given in zip(maps, (expected["cls"], expected["reg"]), strict=True):
        np.testing.assert_allclose(figures(found), given, rtol=1e-4, atol=1e-5)


def merged_state():
    """Of RepVGG as nanodet converts it, to the same effect as the seeded one."""
    state = seeded_state(upstream_state("nanodet-repvgg-a0-416"), GAIN["nanodet-repvgg-a0-416"])
    detector = load_detector(state)
    unused = {key: value for key, value in state.items() if "gfl_reg" in key or "project" in key}
    merge_branches(detector)
    return {**detector.state_dict(), **unused}


def test_a_converted_repvgg():
    expected, state = UPSTREAM["nanodet-repvgg-a0-416"], merged_state()
    assert (len(state), keys_digest(state)) == (expected["merged_keys"], expected["merged_keys_digest"])
    detector = load_detector(state)
    assert detector.config == read_model_file("nanodet-repvgg-a0-416").architecture
    with torch.no_grad():
        maps = detector(seeded_images(64))
    for found, given in zip(maps, (expected["cls"], expected["reg"]), strict=True):
        np.testing.assert_allclose(figures(found), given, rtol=1e-3, atol=1e-4)


def test_a_half_converted_repvgg_is_refused():
    state = merged_state()
    del state["backbone.stage2.1.rbr_reparam.bias"]
    with pytest.raises(CheckpointError, match=r"keys missing: backbone\.stage2\.1\.rbr_1x1\.0\.weight"):
        load_detector(state)


def small(family, **changes):
    config = replace(PUBLISHED[family], num_classes=3, stage_channels=(16, 32, 64), neck_channels=16)
    return replace(config, **changes)


def lively(config):
    torch.manual_seed(0)
    detector = NanoDet(config)
    for module in detector.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return detector.eval()


def test_branches_fold_into_one_and_unfold_again():
    detector, images = lively(small("nanodet-repvgg")).double(), seeded_images(64).double()
    fused = fuse_batch_norm(detector)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.modules())
    assert sum(isinstance(module, nn.Conv2d) for module in fused.backbone.modules()) == 22
    unfolded = NanoDet(detector.config).eval().double()
    unfolded.load_state_dict(unfuse_batch_norm(fused.state_dict(), unfolded))
    with torch.no_grad():
        expected, folded, back = (torch.cat([x.flatten() for x in it(images)[0]]) for it in (detector, fused, unfolded))
    torch.testing.assert_close(folded, expected)
    torch.testing.assert_close(back, expected)


def test_attention_is_that_of_pytorch():
    from train.models.tan import Attention

    torch.manual_seed(0)
    own, theirs = Attention(32).eval(), nn.MultiheadAttention(32, 8).eval()
    nn.init.normal_(own.in_proj_bias)
    theirs.load_state_dict(own.state_dict())
    x = torch.randn(2, 5, 32)
    with torch.no_grad():
        torch.testing.assert_close(own(x), theirs(*[x.transpose(0, 1)] * 3)[0].transpose(0, 1))


@pytest.mark.parametrize(
    ("config", "name", "hw"),
    [
        *((read_model_file(name).architecture, name.rpartition("-")[0], CATALOGUE[name].input_hw) for name in UPSTREAM),
        (small("nanodet-t", attention_hw=(10, 12)), "nanodet-t-0.1x", (160, 192)),
        (small("nanodet-efficientlite"), "nanodet-efficientlite", (320, 320)),
        (small("nanodet-repvgg"), "nanodet-repvgg", (416, 416)),
    ],
)
def test_names_and_inputs(config, name, hw):
    assert architecture_name(config) == name
    if name != "nanodet-m-1.5x":  # published for two inputs
        assert default_hw(config) == hw
        assert default_hw(replace(config, num_classes=5)) == hw


def test_presets_have_the_published_input():
    assert find_preset("nanodet-efficientlite2-512").input_hw == (512, 512)
    assert find_preset("nanodet-plus-m-1.5x-320").input_hw == (320, 320)


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("nanodet-repvgg", {"stage_blocks": ()}, r"stage_blocks \[\]: expected 4 numbers from 1 on, such as \[2, 4,"),
        ("nanodet-efficientlite", {"stage_blocks": (1, 2, 0, 3, 3, 4, 1)}, "expected 7 numbers from 1 on"),
        ("nanodet", {"stage_blocks": (1,)}, r"stage_blocks \[1\]: expected none for nanodet"),
        ("nanodet-t", {"attention_hw": None}, "expected the input's height and width / 16 for nanodet-t"),
        ("nanodet-t", {"attention_hw": (0, 4)}, r"attention_hw \[0, 4\], neck_channels 128: expected sides from 1 on"),
        ("nanodet-t", {"neck_channels": 100}, "and a multiple of 8 channels"),
        ("nanodet-plus", {"attention_hw": (4, 4)}, "expected none for nanodet-plus"),
    ],
)
def test_architectures_that_cannot_be(family, changes, message):
    with pytest.raises(ValueError, match=message):
        replace(PUBLISHED[family], **changes)


def test_an_input_that_nanodet_t_does_not_take():
    detector = NanoDet(small("nanodet-t", attention_hw=(4, 6))).eval()
    assert describe(detector, input_hw=(64, 96)).input_hw == (64, 96)
    with pytest.raises(InputError, match=r"attends to the positions of 64 x 96 pixels .* --input-size 64 96"):
        describe(detector, input_hw=(96, 64))
    with pytest.raises(ValueError, match="an input of 96 x 64"):
        detector(torch.zeros(1, 3, 96, 64))


def test_positions_of_no_square():
    state = NanoDet(small("nanodet-t", attention_hw=(4, 6))).state_dict()
    with pytest.raises(CheckpointError, match="24 positions, which are no square"):
        load_detector(state)


def test_freezing_knows_the_stages():
    for family in PUBLISHED:
        changes = {"attention_hw": (4, 4)} if family == "nanodet-t" else {}
        detector = NanoDet(small(family, **changes))
        stages = detector.backbone_stages()
        own = {id(parameter) for stage in stages for module in stage for parameter in module.parameters()}
        every = {id(parameter) for parameter in detector.backbone.parameters()}
        assert own == every
        detector.freeze(1)
        assert any(not parameter.requires_grad for parameter in detector.backbone.parameters())


# What nanodet's configurations say of each network
SAID = {
    "nanodet-t-320": {
        "backbone": {"name": "ShuffleNetV2", "model_size": "1.0x", "activation": "LeakyReLU"},
        "fpn": {"name": "TAN", "out_channels": 128, "feature_hw": [20, 20], "num_heads": 8, "mlp_ratio": 4},
        "head": {"reg_max": 7, "stacked_convs": 2, "activation": "LeakyReLU"},
    },
    "nanodet-efficientlite2-512": {
        "backbone": {"name": "EfficientNetLite", "model_name": "efficientnet_lite2", "activation": "ReLU6"},
        "fpn": {"name": "PAN", "out_channels": 128},
        "head": {"reg_max": 10, "stacked_convs": 4, "activation": "ReLU6"},
    },
    "nanodet-repvgg-a0-416": {
        "backbone": {"name": "RepVGG", "arch": "A0", "last_channel": 512, "activation": "ReLU"},
        "fpn": {"name": "PAN", "out_channels": 128},
        "head": {"reg_max": 10, "stacked_convs": 2, "activation": "ReLU"},
    },
}


def configuration(folder, name, place=None, value=None):
    """A configuration of nanodet's, with another value at a place of its architecture."""
    arch = copy.deepcopy(SAID[name])
    if place is not None:
        part, key = place.split(".")
        arch[part][key] = value
    path = folder / "train_cfg.yml"
    path.write_text(yaml.safe_dump({"model": {"arch": arch}, "data": {"val": {"input_size": [64, 32]}}}))
    return read_nanodet_config(path)


@pytest.mark.parametrize("name", SAID)
def test_configurations_that_fit(name, tmp_path):
    trained = configuration(tmp_path, name)
    trained.check(read_model_file(name).architecture, "weights")
    assert {claim.field for claim in trained.claims} >= {"family", "neck_channels", "reg_max", "stage_channels"}
    assert trained.input_hw == (32, 64)


@pytest.mark.parametrize(
    ("name", "place", "value", "message"),
    [
        ("nanodet-t-320", "fpn.num_heads", 4, r"fpn\.num_heads is 4, expected 8"),
        ("nanodet-t-320", "fpn.mlp_ratio", 2, r"fpn\.mlp_ratio is 2, expected 4"),
        ("nanodet-t-320", "fpn.feature_hw", [26, 26], r"feature_hw is \[26, 26\], but .* have \[20, 20\]"),
        ("nanodet-t-320", "fpn.name", "PAN", "fpn.name is 'nanodet', but .* have 'nanodet-t'"),
        ("nanodet-t-320", "fpn.activation", "ReLU", "expected LeakyReLU"),
        ("nanodet-efficientlite2-512", "head.activation", "LeakyReLU", "is 'LeakyReLU', expected ReLU6"),
        ("nanodet-efficientlite2-512", "backbone.model_name", "efficientnet_lite1", r"have \[48, 120, 352\]"),
        ("nanodet-efficientlite2-512", "backbone.model_name", "lite9", "expected one of efficientnet_lite0"),
        ("nanodet-repvgg-a0-416", "backbone.activation", "ReLU6", "is 'ReLU6', expected ReLU"),
        ("nanodet-repvgg-a0-416", "backbone.arch", "B0", r"arch is \[4, 6, 16, 1\], but .* have \[2, 4, 14, 1\]"),
        ("nanodet-repvgg-a0-416", "backbone.last_channel", 1280, r"\[96, 192, 1280\], but .* have \[96, 192, 512\]"),
        ("nanodet-repvgg-a0-416", "backbone.arch", "B1g2", "expected one of A0"),
    ],
)
def test_configurations_that_do_not(name, place, value, message, tmp_path):
    with pytest.raises(InputError, match=message):
        configuration(tmp_path, name, place, value).check(read_model_file(name).architecture, "weights")


@pytest.mark.parametrize(
    "change", ["data.input_hw=[96, 64]", "data.sizes=[[64, 64], [96, 96]]", "data.size_range=[1, 2]"]
)
def test_nanodet_t_is_trained_at_its_own_size(toml, change):
    """Settings of squares of 64 x 64 pixels, of which another size is refused before anything is trained."""
    before, _, after = toml.read_text().partition("[model")
    config = toml.with_name("nanodet_t.toml")
    config.write_text(
        f"{before}[model.nanodet]\nfamily = 'nanodet-t'\nneck_channels = 16\nattention_hw = [4, 4]\n\n[data]"
        + after.partition("[data]")[2]
    )
    assert build_detector(read_config(config), 2).config.attention_hw == (4, 4)
    with pytest.raises(InputError, match=r"attends to the positions of \[64, 64\] pixels, the data have \[(96|128)"):
        build_detector(read_config(config, [change]), 2)


def test_a_classifier_gives_its_backbone():
    """As those of RangiLyu/EfficientNet-Lite are called."""
    detector, other = (lively(small("nanodet-efficientlite")) for _ in range(2))
    trained = seeded_state(other.backbone.state_dict())
    load_backbone(detector, {**trained, "head.0.weight": torch.zeros(1), "fc.bias": torch.zeros(1)})
    for key, value in detector.backbone.state_dict().items():
        assert torch.equal(value, trained[key]), key


def test_training_goes_on_from_a_converted_repvgg():
    """Its branches are there again, and those that were merged hold what they did when their norms normalize."""
    images = torch.randn(8, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    network = lively(small("nanodet-repvgg", stage_blocks=(1, 2, 1, 1)))
    network.load_state_dict(unfuse_batch_norm(fuse_batch_norm(network).state_dict(), network))

    def maps():
        with torch.no_grad():
            return torch.cat([level.flatten() for kind in network(images) for level in kind])

    expected = maps()
    unfold_batch_norms(network, neutral_norms(network), [images], Process(torch.device("cpu")))
    torch.testing.assert_close(maps(), expected, rtol=1e-3, atol=1e-4)
    network.train()
    assert float((maps() - expected).square().mean().sqrt() / expected.std()) < 0.1
