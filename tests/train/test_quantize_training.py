"""Fine-tuning with fake quantization: which convolutions round, what is saved, and that it helps."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from export.arguments import ExportRequest
from export.graph import build_graph
from export.to_onnx import export_onnx
from gfl_edge.errors import CalibrationError, InputError
from tests.support.squares_run import assert_resuming_gives_the_same_files, losses
from train.checkpoint import Checkpoint
from train.config import read_config
from train.describe import describe
from train.models.batch_norm import fuse_batch_norm, unfuse_batch_norm
from train.models.gfl import GFL, GFLConfig
from train.models.nanodet import NANODET_G, PUBLISHED, NanoDet, NanoDetConfig
from train.quantize import fake_quantize, float_state, int8_convolutions, observe
from train.run import Run, train
from train.weights.loading import load_detector

PLUS = NanoDetConfig("nanodet-plus", 2, stage_channels=(16, 32, 64), neck_channels=16)
SMALL_GFL = GFLConfig(
    depth=18, base_channels=8, neck_channels=32, head_channels=64, stacked_convs=1, strides=(8, 16, 32), num_classes=2
)
TINY = {
    "nanodet": replace(PLUS, family="nanodet"),
    "nanodet-g": replace(NANODET_G, num_classes=2, stage_channels=(16, 32, 64), neck_channels=16),
    "nanodet-plus": PLUS,
    **{
        family: replace(PUBLISHED[family], num_classes=2, stage_channels=(16, 32, 64), neck_channels=16, **changes)
        for family, changes in (
            ("nanodet-t", {"attention_hw": (4, 4)}),
            ("nanodet-efficientlite", {"stage_blocks": (1,) * 7}),
            ("nanodet-repvgg", {"stage_blocks": (1, 2, 1, 1)}),
        )
    },
    "gfl": SMALL_GFL,
    "gflv2": replace(SMALL_GFL, family="gflv2"),
    "atss": replace(SMALL_GFL, family="atss", quality="centerness", regression="delta"),
}
OTHERS = {
    "efficientnet-lite0": GFLConfig(backbone="efficientnet-lite0", neck="pan", strides=(8, 16, 32), stacked_convs=1),
    "five levels": GFLConfig(depth=18, stacked_convs=1),
    "centerness": GFLConfig(depth=18, stacked_convs=1, quality="centerness"),
}
ON = ["quantize.enabled=true", "quantize.calibration_batches=2", 'quantize.method="max"']
SPOILED = 100  # times
QUICK = ("nanodet", "gflv2")  # their placement; the others with the slow tests

pytestmark = pytest.mark.usefixtures("one_thread", "one_trace", "few_blocks")


def build(config):
    """A detector in eval mode whose batch norms are far from identities."""
    torch.manual_seed(0)
    detector = NanoDet(config) if isinstance(config, NanoDetConfig) else GFL(config)
    for module in detector.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return detector.eval()


def outputs(detector, images):
    with torch.no_grad():
        return torch.cat([level.flatten() for maps in detector(images) for level in maps])


def random_images(batch=2):
    return torch.randn(batch, 3, 64, 64, generator=torch.Generator().manual_seed(1))


# --- which convolutions ----------------------------------------------------------------------------------------------


def check_placement(config):
    from calib.placement import place

    detector = build(config)
    model = build_graph(detector, describe(detector, input_hw=(64, 64)))
    graph = place(model)
    placed = {layer.name.removeprefix("body.") for layer in graph.layers if layer.kind == "Conv"}
    assert set(int8_convolutions(fuse_batch_norm(detector))) == placed
    assert len(placed) > 10


@pytest.mark.parametrize(
    "config",
    [pytest.param(c, marks=[] if name in QUICK else [pytest.mark.slow], id=name) for name, c in TINY.items()],
)
def test_the_convolutions_are_those_that_get_pairs_in_the_onnx_file(config):
    check_placement(config)


@pytest.mark.slow
@pytest.mark.parametrize("config", OTHERS.values(), ids=OTHERS)
def test_the_convolutions_of_other_networks(config):
    check_placement(config)


def test_weights_round_per_channel_and_inputs_by_their_range():
    detector = fuse_batch_norm(build(PLUS))
    convolutions = int8_convolutions(detector)
    ranges = observe(detector, convolutions, [random_images()], "max")
    name = "fpn.reduce_layers.0.conv"
    conv = convolutions[name]
    plain, seen = conv.weight.detach().clone(), []
    assert fake_quantize(detector, detector, [random_images()], "max") == len(convolutions)
    # Cloned, because the activation behind it works in place
    conv.register_forward_hook(lambda module, inputs, output: seen.append((inputs[0], output.clone())))
    outputs(detector, random_images())
    given, found = seen[0]
    step = ranges[name] / 127
    rounded = (given / step).round().clamp(-128, 127) * step
    scales = plain.abs().amax(dim=(1, 2, 3), keepdim=True) / 127
    expected = nn.functional.conv2d(rounded, (plain / scales).round() * scales, conv.bias)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(conv.parametrizations.weight.original, plain)
    assert not isinstance(detector.head.gfl_cls[0], type(conv))


def test_padding_of_its_own_is_no_obstacle():
    config = replace(OTHERS["efficientnet-lite0"], neck_channels=32, head_channels=32)
    detector = fuse_batch_norm(build(config))
    before = outputs(detector, random_images())
    fake_quantize(detector, detector, [random_images()], "max")
    assert "backbone._blocks.0._depthwise_conv" in int8_convolutions(detector)
    assert not torch.equal(outputs(detector, random_images()), before)


def test_deformable_convolutions_are_refused():
    config = replace(SMALL_GFL, depth=50, dcn="v1", dcn_stages=(False, False, True, True))
    detector = fuse_batch_norm(build(config))
    with pytest.raises(InputError, match="deformable"):
        fake_quantize(detector, detector, [random_images()], "max")


def test_activations_that_are_not_finite_are_refused():
    detector = fuse_batch_norm(build(PLUS))
    with pytest.raises(CalibrationError, match="not finite"):
        observe(detector, int8_convolutions(detector), [random_images() * torch.inf], "max")


# --- what is saved ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", TINY.values(), ids=TINY)
def test_folded_weights_go_back_into_a_network_with_batch_norms(config):
    detector = build(config)
    before = outputs(detector, random_images())
    state = unfuse_batch_norm(fuse_batch_norm(detector).state_dict(), detector)
    assert state.keys() == detector.state_dict().keys()
    detector.load_state_dict(state)
    torch.testing.assert_close(outputs(detector, random_images()), before, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("config", [PLUS, SMALL_GFL], ids=["nanodet-plus", "gfl"])
def test_the_float_state_is_of_the_plain_network(config):
    detector = fuse_batch_norm(build(config))
    before = outputs(detector, random_images())
    fake_quantize(detector, detector, [random_images()], "max")
    loaded = load_detector(float_state(detector))
    torch.testing.assert_close(outputs(loaded, random_images()), before, rtol=1e-5, atol=1e-5)


# --- runs ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def float_run(squares, tmp_path_factory):
    """The checkpoint of a float run."""
    folder = tmp_path_factory.mktemp("float")
    words = [f'train.output="{folder}"', "train.epochs=12", "train.evaluate_every=0"]
    train(read_config(squares / "run.toml", words))
    return folder / "last.pt"


@pytest.fixture
def start(float_run):
    """The setting that names it."""
    return f'model.weights="{float_run}"'


def test_a_run_leaves_a_float_checkpoint(toml, start, float_run, caplog, tmp_path):
    with caplog.at_level("INFO"):
        train(read_config(toml, [start, *ON]))
    assert "convolutions compute as in INT8, ranges by max" in caplog.text
    assert all(math.isfinite(loss) for loss in losses("run"))
    before, after = Checkpoint.load(float_run), Checkpoint.load("run/last.pt")
    assert after.state_dict.keys() == before.state_dict.keys()
    folded = fuse_batch_norm(load_detector(float_run)).state_dict()
    trained = fuse_batch_norm(load_detector("run/last.pt")).state_dict()
    assert any((trained[key] - value).abs().max() > 1e-4 for key, value in folded.items())
    # Without fake quantization it goes on, too
    with caplog.at_level("INFO"):
        train(read_config(toml, [f'model.weights="{tmp_path / "run" / "last.pt"}"', 'train.output="on"']))
    assert "batch norms of last.pt normalize nothing" in caplog.text
    assert max(losses("on")) < 1.1 * max(losses("run"))
    # Exporting compares the graph with PyTorch
    spec = export_onnx(ExportRequest(Path("run/last.pt"), nms="none"), Path("qat.onnx")).spec
    assert spec.class_names == ("white", "gray")


def test_resuming_gives_the_same_files(toml, start):
    assert_resuming_gives_the_same_files(toml, [start, *ON])


def test_mixed_precision(toml, start):
    train(read_config(toml, [start, *ON, 'train.amp="bf16"', "train.epochs=1"]))
    assert all(math.isfinite(loss) for loss in losses("run"))


def test_it_recovers_what_rounding_costs(toml, float_run, tmp_path):
    """A channel of large values, which the next convolution scales down again, leaves the others few steps of INT8.

    Both ways train on for as long; that without fake quantization does not know.
    """
    network = load_detector(float_run)
    with torch.no_grad():
        for lateral, conv in zip(network.neck.lateral_convs, network.neck.fpn_convs, strict=True):
            lateral.conv.weight[0] *= SPOILED
            lateral.conv.bias[0] *= SPOILED
            conv.conv.weight[:, 0] /= SPOILED
    Path("spoiled").mkdir()
    replace(Checkpoint.load(float_run), state_dict=network.state_dict()).save("spoiled/last.pt")
    name = f'model.weights="{tmp_path / "spoiled" / "last.pt"}"'
    changes = [name, "train.epochs=12", "train.evaluate_every=0", "optimizer.lr=3e-4"]
    train(read_config(toml, [*changes, 'train.output="without"']))
    train(read_config(toml, [*changes, *ON, 'train.output="with"']))
    before, without, tuned = (
        rounded_loss(toml, tmp_path / name / "last.pt") for name in ("spoiled", "without", "with")
    )
    assert tuned < 0.95 * without < without < before


def rounded_loss(toml, weights):
    """The loss on the training images with all convolutions rounded."""
    run = run_alone(read_config(toml, [f'model.weights="{weights}"', 'train.output="none"', *ON]))
    run.network.eval()
    with torch.no_grad():
        found = [sum(run.trainer.losses(batch).values()) for batch in run.data.batches(0)]
    return float(torch.stack(found).mean())


def run_alone(config):
    from train.distributed import joined

    with joined("cpu") as process:
        return Run(config, process)


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["quantize.enable=true"], r"quantize\.enable: no such field; enabled\?"),
        (["quantize.calibration_batches=0"], r"quantize\.calibration_batches 0: expected 1 or more"),
        (['quantize.method="best"'], r"quantize\.method 'best': expected one of"),
        (["quantize.enabled=true"], r"model\.weights: missing; quantize\.enabled"),
        (
            ['model.weights="nanodet-m-320"', "quantize.enabled=true", "train.compile=true"],
            r"train\.compile: not with quantize",
        ),
    ],
)
def test_settings_that_are_refused(toml, changes, message):
    with pytest.raises(InputError, match=message):
        read_config(toml, changes)
