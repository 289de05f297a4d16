"""Half precision with layers that half cannot hold: found, kept float32, and nothing else is."""

from __future__ import annotations

import contextlib
import dataclasses

import cv2
import numpy as np
import onnx
import pytest
import torch
from torch import nn

from export import graph, half, magnitudes, parity, to_onnx
from export.half import LIMIT, FloatModule, HalfPlan, make_plan, to_half
from export.magnitudes import Magnitudes, measure, read_images
from gfl_edge.engine.build import BuildPlan, build_engine, check_precision
from gfl_edge.errors import ParityError, PrecisionError
from gfl_edge.spec import ModelSpec, read_spec
from train import describe
from train.models.gfl import GFL, GFLConfig

NAMES = ("a", "b", "c")
TINY = GFLConfig(
    depth=18, base_channels=8, neck="pan", strides=(8, 16, 32), neck_channels=32, head_channels=32, stacked_convs=1,
    num_classes=3, reg_max=7,
)  # fmt: skip
DEFORMABLE = {"depth": 50, "dcn": "v1", "dcn_stages": (False, False, False, True)}
pytestmark = pytest.mark.usefixtures("one_thread")


def network(config=TINY, **changes):
    """A small network with random weights that answers."""
    torch.manual_seed(0)
    detector = GFL(dataclasses.replace(config, **changes)).eval()
    for name, parameter in detector.named_parameters():
        if "conv_offset" in name or "gfl_cls.weight" in name or "gfl_reg.weight" in name:
            nn.init.normal_(parameter, std=0.3)
    return detector


def overflowing(detector):
    """Let one convolution give values that half does not have; the next takes them back."""
    block = detector.backbone.layer2[1]
    nn.init.normal_(block.bn2.weight)  # fresh residual branches are zero
    with torch.no_grad():
        block.bn1.weight *= 1e6
        block.bn1.bias += 1e6
        block.conv2.weight /= 1e6
    return detector


def spec_of(detector, **changes):
    spec = describe.describe(detector, input_hw=(64, 96), class_names=NAMES)
    return dataclasses.replace(spec, **{"nms": "graph", "precision": "fp16", **changes})


def plan_of(detector, spec):
    reference = graph.ExportedDetector(detector, dataclasses.replace(spec, precision="fp32", nms="none")).eval()
    return make_plan(measure(reference, reference.body, [parity.compared_images(spec)]), spec)


def read_metadata(model):
    return ModelSpec.from_metadata({prop.key: prop.value for prop in model.metadata_props}, "m.onnx")


class Toy(nn.Module):
    """Every way in which a large value can come and go; inputs are 0..255, weights all 1 but where set."""

    def __init__(self, factor=1.0, gain=1.0):
        super().__init__()
        self.gain = gain
        self.grow, self.act = nn.Conv2d(3, 1, 1, bias=False), nn.ReLU(inplace=True)
        self.same = nn.Sequential()
        self.shrink = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.Identity())
        nn.init.constant_(self.grow.weight, factor)
        nn.init.constant_(self.shrink[0].weight, 1 / factor)

    def forward(self, x):
        x = x.permute(0, 3, 1, 2).to(self.grow.weight.dtype)
        x = self.shrink(self.same(self.act(self.grow(x))))
        return ((x + x * self.gain) / self.gain,)


WHITE = np.full((1, 4, 5, 3), 255, np.uint8)


def test_magnitudes_of_every_operation():
    toy = Toy(factor=100.0, gain=3.0)
    nn.init.constant_(toy.grow.weight[:, 0], -400.0)  # the sum is negative, which the activation takes away in place
    found = measure(toy, toy, [WHITE // 255, WHITE])
    assert found["grow"] == Magnitudes(weights=400, computed=51000, entering=255, leaving={0: 51000})
    assert found["act"] == Magnitudes(weights=0, computed=51000, entering=51000, leaving={0: 0})
    assert found["same"] == Magnitudes(weights=0, computed=0, entering=0, leaving={0: 0})
    toy = Toy(factor=1.0, gain=3.0)
    assert measure(toy, toy, [WHITE])[""].computed == 4 * 765  # x + 3 x, which is of no layer


def test_nothing_is_left_on_the_network():
    toy = Toy()
    measure(toy, toy, [WHITE])
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in toy.modules())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_does_not_fit(value):
    assert magnitudes._magnitude(torch.tensor([1.0, value, 2.0])) == float("inf")
    assert magnitudes._magnitude(torch.zeros(0, 3)) == 0


def test_only_what_touches_a_large_value_stays_float():
    toy = Toy(factor=100.0)  # 76500 behind `grow`
    plan = make_plan(measure(toy, toy, [WHITE]), spec_of(network()))
    assert plan.kept_float == (
        FloatModule("grow", 76500, frozenset()),
        FloatModule("act", 76500, frozenset()),
        FloatModule("shrink.0", 76500, frozenset({0})),
    )
    assert "fp16: grow stays float32, it reaches 7.65e+04 (32752 allowed)" in str(plan)
    body = to_half(toy, plan)
    (result,) = body(torch.from_numpy(WHITE))
    assert result.dtype == torch.float16
    assert torch.equal(result, torch.full((1, 1, 4, 5), 1530.0).half())


def test_weights_count_and_do_not_pass_through_half():
    toy = Toy(factor=1e-6)  # whose inverse, a weight of 1e6, half does not have
    plan = make_plan(measure(toy, toy, [WHITE]), spec_of(network()))
    assert [module.name for module in plan.kept_float] == ["shrink.0"]
    assert float(to_half(toy, plan).shrink[0].weight.detach().max()) == pytest.approx(1e6)
    assert toy.grow.weight.dtype == torch.float16


def test_without_large_values_everything_is_half():
    toy = Toy()
    plan = make_plan(measure(toy, toy, [WHITE]), spec_of(network()))
    assert not plan.kept_float
    assert str(plan) == "fp16: every layer fits, the largest magnitude is 1530 in the body (32752 allowed)"


def test_a_network_that_is_float_as_a_whole_is_refused():
    toy = Toy(gain=1000.0)
    with pytest.raises(PrecisionError, match=r"outside of any layer.*whole network.*without --fp16, or with --bf16"):
        make_plan(measure(toy, toy, [WHITE]), spec_of(network()))


@pytest.mark.parametrize("nms", ["raw", "plugin"])
def test_raw_maps_have_to_fit(nms):
    found = {"": Magnitudes(leaving={0: 3.0, 1: LIMIT + 1}), "head": Magnitudes(computed=LIMIT + 1)}
    with pytest.raises(PrecisionError, match=rf"raw maps of --nms {nms} .*Take --nms graph or none"):
        make_plan(found, spec_of(network(), nms=nms))
    assert make_plan(found, spec_of(network())).kept_float


def test_a_module_covers_its_children():
    plan = HalfPlan((FloatModule("neck.0", 1e5, frozenset()),), frozenset(), ("neck.0", 1e5))
    assert [plan.covers(name) for name in ("neck.0", "neck.0.conv", "neck.01", "neck", "")] == [True, True] + [
        False
    ] * 3


@pytest.mark.parametrize(
    "fields", [{}, {"family": "gflv2", "depth": 50, "dcn": "v2", "dcn_stages": (False,) * 3 + (True,)}]
)
@pytest.mark.parametrize("place", ["residual", "neck", "head"])
def test_sums_and_maps_between_modules(fields, place):
    """A large value that is added, resized and sliced between layers; PyTorch runs the mixed network."""
    detector = network(**fields)
    with torch.no_grad():
        if place == "residual":
            detector.backbone.layer4[0].downsample[1].bias += 1e5
            nn.init.zeros_(detector.neck.lateral_convs[2].conv.weight)
        if place == "neck":
            detector.neck.lateral_convs[1].conv.bias += 5e4
        if place == "head":
            detector.bbox_head.gfl_reg.bias += 4e4  # the softmax does not see it
    spec = spec_of(detector)
    plan = plan_of(detector, spec)
    assert plan.kept_float
    images = torch.from_numpy(parity.compared_images(spec))
    with torch.no_grad():
        _, expected = graph.ExportedDetector(detector, dataclasses.replace(spec, precision="fp32", nms="none"))(images)
        mixed = graph.ExportedDetector(detector, dataclasses.replace(spec, nms="none"), plan=plan)
        _, scores = mixed(images)
    dtypes = {name: parameter.dtype for name, parameter in mixed.body.named_parameters()}
    assert all((dtype == torch.float32) == plan.covers(name) for name, dtype in dtypes.items())
    assert dtypes["backbone.conv1.weight"] == torch.float16
    torch.testing.assert_close(scores, expected, atol=0.03, rtol=0)


@pytest.fixture(scope="module")
def hardened(tmp_path_factory):
    """What the command wrote, the network, and what it said."""
    folder = tmp_path_factory.mktemp("hardened")
    detector = overflowing(network())
    torch.save({"state_dict": detector.state_dict()}, folder / "own.pth")
    (folder / "images").mkdir()
    cv2.imwrite(str(folder / "images" / "a.png"), parity.random_images(1, (50, 70))[0])
    return folder, detector


@pytest.fixture(scope="module")
def path(hardened):
    folder, _ = hardened
    words = ["--weights", folder / "own.pth", "--input-size", 64, 96, "--classes", "a,b,c", "--fp16"]
    words += ["--check-images", folder / "images", "-o", folder / "m.onnx"]
    with (folder / "log").open("w") as log, contextlib.redirect_stderr(log):
        assert to_onnx.main([str(word) for word in words]) == 0
    return folder / "m.onnx"


class TestExport:
    """From the command to the engine."""

    def test_without_it_parity_fails(self, hardened):
        _, detector = hardened
        spec = spec_of(detector, nms="none")
        with pytest.raises(ParityError):
            parity.compare(detector, graph.build_graph(detector, spec), spec)

    def test_the_log_names_the_layers(self, path):
        log = (path.parent / "log").read_text()
        assert "fp16: backbone.layer2.1.conv1 stays float32, it reaches " in log
        assert "fp16: backbone.layer2.1.conv2 stays float32" in log
        assert "backbone.layer2.0" not in log

    def test_the_file_lists_them(self, path):
        spec = read_spec(path)
        model = onnx.load(path)
        weights = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
        found = {
            node.name
            for node in model.graph.node
            if node.op_type == "Conv" and weights[node.input[1]] == onnx.TensorProto.FLOAT
        }
        assert set(spec.float_layers) == found
        assert len(found) == 2

    def test_the_engine_has_exactly_those_float(self, path, tmp_path):
        trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
        spec = read_spec(path)
        logger = trt.Logger(trt.Logger.ERROR)
        builder = trt.Builder(logger)
        built = builder.create_network(0)
        parser = trt.OnnxParser(built, logger)
        assert parser.parse(path.read_bytes())
        assert check_precision(built, spec, "rtx")
        first, _ = spec.float_layers
        other = next(
            n.name for n in onnx.load(path).graph.node if n.op_type == "Conv" and n.name not in spec.float_layers
        )
        for layers in ((), (first,), (*spec.float_layers, other)):
            with pytest.raises(PrecisionError, match="is declared fp16, but"):
                check_precision(built, dataclasses.replace(spec, float_layers=layers), "rtx")
        engine, sidecar = build_engine(BuildPlan(path, "rtx", ("sm75",)), tmp_path, progress=False)
        assert engine.stat().st_size > 10_000
        assert sidecar.spec.float_layers == spec.float_layers

    def test_a_layer_that_is_float_by_mistake_is_an_error(self, path):
        model = onnx.load(path)
        del model.graph.node[-1], model.functions[:], model.graph.output[:]
        nothing = HalfPlan((), frozenset(), ("", 0.0))
        with pytest.raises(PrecisionError, match=r"Conv node_.* came out as float32"):
            half.float_layers(model, {}, nothing)

    @pytest.mark.parametrize("fields", [{}, pytest.param(DEFORMABLE, marks=pytest.mark.slow)], ids=["plain", "dcn"])
    def test_the_neck_of_gflv2(self, fields):
        """Whose sums and resizes between layers become float32 nodes of the graph."""
        detector = network(family="gflv2", **fields)
        with torch.no_grad():
            detector.neck.lateral_convs[1].conv.bias += 5e4
        spec = spec_of(detector)
        plan = plan_of(detector, spec)
        model = graph.build_graph(detector, spec, plan=plan)
        assert parity.compare(detector, model, spec).passed
        listed = read_metadata(model).float_layers
        kinds = {node.op_type for node in model.graph.node if node.name in listed}
        assert kinds == {"Conv", "Resize"}


class TestCheckImages:
    def test_images_are_resized_as_frames_are(self, tmp_path):
        for i in range(34):
            cv2.imwrite(str(tmp_path / f"{i:02}.png"), np.full((40, 30, 3), i, np.uint8))
        found = list(read_images(tmp_path, spec_of(network())))
        assert len(found) == 32
        assert {images.shape for images in found} == {(1, 64, 96, 3)}
        assert found[7][0, 0, 0].tolist() == [7, 7, 7]

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (
                ["--check-images", "."],
                "--check-images says on what the range of FP16 is checked, not of fp32: add --fp16",
            ),
            (["--bf16", "--check-images", "."], "not of bf16: add --fp16"),
            (["--fp16", "--check-images", "nowhere"], "nowhere"),
        ],
    )
    def test_wrong_options(self, words, message, tmp_path, capsys, monkeypatch):
        monkeypatch.chdir(tmp_path)
        torch.save({"state_dict": network().state_dict()}, "own.pth")
        options = ["--weights", "own.pth", "--input-size", "64", "96", "--classes", "a,b,c", "-o", "m.onnx"]
        assert to_onnx.main([*options, *words]) == 1
        assert message in capsys.readouterr().err
        assert not (tmp_path / "m.onnx").exists()
