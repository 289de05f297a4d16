"""Standard deviations of edges through every road of an exported model, against the textbook."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from onnx.inliner import inline_local_functions

from export import graph, parity
from export.arguments import ExportOptions
from export.engine import EngineRequest, _check
from export.plugin import plugin_attributes
from export.source import OnnxFile
from gfl_edge.backends.onnx_cpu import OnnxRuntimeBackend, OpenVinoBackend
from gfl_edge.backends.tied_scores import with_ordered_topk
from gfl_edge.errors import InputError, ParityError
from gfl_edge.ops import decode
from gfl_edge.ops.nms_graph import append_nms, nms_function
from gfl_edge.ops.onnx_graph import copy_model, without_nms
from gfl_edge.ops.postprocess import detections, sigmoid
from gfl_edge.spec import load_contract, spec_of
from tests.support.once import once
from tests.support.raw_maps import SPEC as RAW_SPEC
from tests.support.raw_maps import random_maps
from tests.support.sigma_oracle import deviations, sigmas_of_points
from tests.support.tiny_onnx import tiny_onnx
from train.describe import with_sigmas
from train.models.gfl import GFL, GFLConfig
from train.validation import TorchBackend

SPEC = replace(RAW_SPEC, edge_sigma=True)


def test_the_textbook_is_right():
    """torch.distributions knows nothing of this project."""
    logits = torch.randn(7, 4, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    chances = torch.distributions.Categorical(logits=logits).probs
    bins = torch.arange(9.0, dtype=torch.float64)
    means = (chances * bins).sum(-1)
    variance = (chances * (bins - means[..., None]) ** 2).sum(-1)
    np.testing.assert_allclose(deviations(logits.reshape(7, -1).numpy()), variance.sqrt().numpy(), atol=1e-12)


class Maps(torch.nn.Module):
    """A network that gives those maps, whatever it sees; of them as many levels as the spec has strides."""

    config = SimpleNamespace(family="nanodet", regression="distribution")

    def __init__(self, cls, reg, spec):
        super().__init__()
        self.maps = [], []
        begin = 0
        for stride in spec.strides:
            height, width = (-(-side // stride) for side in spec.input_hw)
            end = begin + height * width
            for levels, rows in zip(self.maps, (cls, reg), strict=True):
                level = torch.from_numpy(rows[:, begin:end]).transpose(1, 2)
                levels.append(level.reshape(len(rows), -1, height, width))
            begin = end

    def forward(self, images):
        return self.maps


class Small(torch.nn.Module):
    """A network of two convolutions that finds something in every image."""

    config = Maps.config

    def __init__(self, spec):
        super().__init__()
        self.strides = spec.strides
        generator = torch.Generator().manual_seed(0)
        for name, width in (("cls", spec.num_classes), ("reg", 4 * (spec.reg_max + 1))):
            layer = torch.nn.Conv2d(3, width, 1)
            torch.nn.init.normal_(layer.weight, 0, 0.02, generator)
            torch.nn.init.zeros_(layer.bias)
            setattr(self, name, layer)

    def forward(self, images):
        levels = [torch.nn.functional.avg_pool2d(images, stride) for stride in self.strides]
        return [self.cls(level) for level in levels], [self.reg(level) for level in levels]


def batch(seed):
    maps = [random_maps(seed + i, SPEC) for i in range(2)]
    return [np.stack(arrays) for arrays in zip(*maps, strict=True)]


def in_torch(cls, reg):
    """Boxes, scores and sigmas by the module that is exported."""
    module = graph.ExportedDetector(Maps(cls, reg, SPEC), replace(SPEC, nms="none"), rewritten=False)
    with torch.no_grad():
        return [value.numpy() for value in module(torch.zeros(2, *SPEC.input_hw, 3, dtype=torch.uint8))]


def test_pytorch():
    cls, reg = batch(0)
    boxes, scores, sigmas = in_torch(cls, reg)
    np.testing.assert_allclose(sigmas, [sigmas_of_points(one, SPEC) for one in reg], rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(boxes, decode.decode(reg, SPEC.input_hw, SPEC.strides, SPEC.point_offset), atol=1e-3)
    np.testing.assert_allclose(scores, sigmoid(cls), atol=1e-6)


def nms_graph(spec):
    """Constant-free: the image's bytes are not read, boxes, scores and sigmas are inputs beside it."""
    widths = {"boxes": 4, "scores": spec.num_classes, "sigmas": 4}
    inputs = [
        helper.make_tensor_value_info(f"{name}_in", TensorProto.FLOAT, ["batch", spec.num_anchors, width])
        for name, width in widths.items()
    ]
    nodes = [helper.make_node("Identity", [f"{name}_in"], [name]) for name in widths]
    opsets = [helper.make_opsetid("", 18)]
    model = helper.make_model(helper.make_graph(nodes, "g", inputs, []), opset_imports=opsets, ir_version=10)
    append_nms(model, spec)
    onnx.checker.check_model(model, full_check=True)
    return model


def in_onnxruntime(model, feeds):
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(list(SPEC.detection_names), feeds)


def in_openvino(model, feeds):
    openvino = pytest.importorskip("openvino")
    core = openvino.Core()
    network = core.read_model(inline_local_functions(with_ordered_topk(model)).SerializeToString(), b"")
    network.reshape({name: list(array.shape) for name, array in feeds.items()})
    request = core.compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).create_infer_request()
    request.infer(feeds)
    return [request.get_tensor(name).data.copy() for name in SPEC.detection_names]


@pytest.mark.parametrize("run", [in_onnxruntime, in_openvino])
def test_nms_in_the_graph(run):
    spec = replace(SPEC, nms="graph")
    cls, reg = batch(2)
    boxes, scores, sigmas = in_torch(cls, reg)
    scores[:, :40] = np.round(scores[:, :40], 1)  # equal ones among them
    outputs = run(nms_graph(spec), {"boxes_in": boxes, "scores_in": scores, "sigmas_in": sigmas})
    outputs = dict(zip(spec.detection_names, outputs, strict=True))
    assert outputs["det_sigmas"].shape == (2, spec.max_detections, 4)
    host = {"boxes": boxes, "scores": scores, "sigmas": sigmas}
    for index in range(2):
        found = detections(outputs, index, spec, spec.input_hw)
        want = detections(host, index, replace(spec, nms="none"), spec.input_hw)
        assert len(want.scores) > 5
        np.testing.assert_array_equal(found.scores, want.scores)
        np.testing.assert_array_equal(found.boxes, want.boxes)
        np.testing.assert_array_equal(found.sigmas, want.sigmas)
        assert not outputs["det_sigmas"][index, len(want.scores) :].any()


def test_without_the_option_nothing_changes():
    """The function and the plugin's attributes are those of every file before."""
    function = nms_function(20, 10)
    assert (list(function.input), len(function.output)) == (["boxes", "scores"], 4)
    assert "edge_sigma" not in plugin_attributes(replace(RAW_SPEC, nms="plugin"))
    assert plugin_attributes(replace(SPEC, nms="plugin"))["edge_sigma"] == 1


@pytest.fixture(scope="module")
def small():
    spec = replace(SPEC, nms="graph")
    return Small(spec).eval(), spec


@pytest.fixture(scope="module")
def whole(small, shared):
    """The small network with NMS and sigmas in its graph, exported once."""
    detector, spec = small
    path = shared / "uncertainty.onnx"
    once(path, lambda path: onnx.save(graph.build_graph(detector, spec), path))
    return path


def test_an_exported_file(small, whole):
    detector, spec = small
    model, read = load_contract(whole)
    assert read == spec
    assert [output.name for output in model.graph.output][-1] == "det_sigmas"
    found = parity.compare(detector, model, spec)
    assert found.sigma is not None
    assert found.sigma <= 1e-3
    assert "sigma" in str(found)


def squared(model):
    """Variances instead of deviations."""
    next(node for node in model.graph.node if node.op_type == "Sqrt").op_type = "Identity"


def of_other_points(model):
    (function,) = (it for it in model.functions if it.name == "GflNms")
    next(node for node in function.node if "det_anchor_column" in node.output).input[0] = "order"


@pytest.mark.parametrize("spoil", [squared, of_other_points])
def test_parity_notices_other_sigmas(small, whole, spoil):
    detector, spec = small
    model = onnx.load(whole)
    spoil(model)
    with pytest.raises(ParityError, match="disagrees with PyTorch"):
        parity.compare(detector, model, spec)


def test_every_library_gives_the_same(small, whole):
    """With NMS in the graph, and cut off; and PyTorch itself."""
    detector, spec = small
    images = parity.random_images(2, spec.input_hw)
    model = onnx.load(whole)
    cut = copy_model(model)
    without = without_nms(cut, spec)
    assert without.output_names == ("boxes", "scores", "sigmas")
    backends = [TorchBackend(detector, without, torch.device("cpu"))]
    for make in (OnnxRuntimeBackend, OpenVinoBackend):
        backends += [make(model, spec), make(cut, without)]
    all_found = []
    for backend in backends:
        outputs = backend.run(images)
        all_found.append([detections(outputs, i, backend.spec, spec.input_hw) for i in range(2)])
        backend.close()
    assert sum(len(found.scores) for found in all_found[0]) > 5
    for others in all_found[1:]:
        for found, want in zip(others, all_found[0], strict=True):
            np.testing.assert_allclose(found.scores, want.scores, atol=1e-4)
            apart = np.abs(objects(found)[:, None] - objects(want)).max(axis=2)
            assert max(apart.min(axis=0).max(), apart.min(axis=1).max()) < 0.05


def objects(found):
    """A row of each, in pixels and whole classes; libraries order those of nearly the same score differently."""
    return np.concatenate((found.boxes, found.sigmas, found.classes[:, None]), axis=1)


def test_metadata_keep_the_factors(whole):
    model = onnx.load(whole)
    spec = replace(spec_of(model, "a"), sigma_scale=(0.5, 1.25, 2, 1))
    assert type(spec).from_metadata(spec.to_metadata(), "a") == spec
    old = {key: text for key, text in spec.to_metadata().items() if not key.endswith(("edge_sigma", "sigma_scale"))}
    assert type(spec).from_metadata(old, "a") == replace(spec, edge_sigma=False, sigma_scale=(1, 1, 1, 1))


@pytest.mark.parametrize(
    "scale", [(0, 1, 1, 1), (1, 1, 1), (1, 1, 1, -2), (1, 1, 1, float("nan")), (1, 1, 1, 2000), "1111"]
)
def test_factors_that_are_none(scale):
    with pytest.raises(ValueError, match="sigma_scale"):
        replace(SPEC, sigma_scale=scale)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("nms", ["graph", "none", "raw", "plugin"])
def test_every_form_is_that_of_pytorch(small, nms, precision):
    detector, spec = small
    spec = replace(spec, nms=nms, precision=precision)
    found = parity.compare(detector, graph.build_graph(detector, spec), spec)
    assert found.passed
    assert found.sigma is not None


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nanodet-m-320", "nanodet-plus-m-320"])
def test_published_models(exported, name):
    """Exporting compares them with PyTorch."""
    _, spec = load_contract(exported(name, uncertainty=True))
    assert spec.edge_sigma
    assert spec.file_stem == f"{name}-fp32-sigma"


def test_a_detector_without_distributions(tmp_path):
    config = GFLConfig(num_classes=3, base_channels=8, neck_channels=32, head_channels=32, regression="dirac", depth=18)
    with pytest.raises(InputError, match=r"--uncertainty: a\.pth predicts a distance for each edge and no distri"):
        with_sigmas(GFL(config), replace(SPEC, edge_sigma=False), "a.pth")
    with pytest.raises(ValueError, match=r"edge_sigma: there is no distribution of an edge \(reg_max 0\)"):
        replace(SPEC, nms="graph", reg_max=0)


def test_a_file_that_was_exported_without(tmp_path):
    onnx.save(tiny_onnx("graph"), tmp_path / "m.onnx")
    request = EngineRequest(tmp_path / "m.onnx", output_dir=tmp_path, export=ExportOptions(uncertainty=True))
    with pytest.raises(InputError, match=r"m\.onnx was exported without, and its network does not give what is asked"):
        _check(request, OnnxFile.read(tmp_path / "m.onnx"))
