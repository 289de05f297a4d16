"""INT8: pictures, ranges, equalization, biases, placement, the search, the gate, and the engine that comes of it."""

from __future__ import annotations

import dataclasses
import json
import math
import re

import cv2
import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from calib import agreement, calibrate, equalize, placement, qdq, sensitivity
from calib.arguments import CalibrationRequest
from calib.histogram import BINS, METHODS, STEPS, Histogram
from calib.images import MIN_IMAGES, choose_images
from calib.ranges import Observed, observe
from export import graph, to_trt
from gfl_edge.detector import Detector
from gfl_edge.errors import CalibrationError, InputError, PrecisionError
from gfl_edge.files import sha256
from gfl_edge.ops.onnx_graph import open_session
from gfl_edge.spec import load_contract, read_spec
from train import describe
from train.models.gfl import GFL, GFLConfig

pytestmark = pytest.mark.usefixtures("one_thread")
NAMES = ("a", "b", "c")


def write_pictures(folder, count=MIN_IMAGES, seed=0):
    """Pictures of rectangles."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        picture = np.full((48, 80, 3), rng.integers(0, 255, 3), np.uint8)
        for _ in range(4):
            x, y = (int(v) for v in rng.integers(0, 60, 2))
            cv2.rectangle(picture, (x, y), (x + 18, y + 14), rng.integers(0, 255, 3).tolist(), -1)
        cv2.imwrite(str(folder / f"{i:03}.png"), picture)
    return folder


def make_detector():
    """A small network with random weights that answers, some of its channels much wider than others."""
    torch.manual_seed(0)
    config = GFLConfig(
        depth=18, base_channels=8, neck="pan", strides=(8, 16, 32), neck_channels=16, head_channels=16,
        stacked_convs=1, num_groups=4, num_classes=3, reg_max=7,
    )  # fmt: skip
    detector = GFL(config).eval()
    with torch.no_grad():
        for name, parameter in detector.named_parameters():
            if "gfl_cls.weight" in name or "gfl_reg.weight" in name:
                nn.init.normal_(parameter, std=0.3)
            if "bn1.weight" in name:
                parameter *= torch.logspace(-1, 1, len(parameter))
            if "bn2.weight" in name:
                nn.init.normal_(parameter, std=0.5)
    return detector


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("calib")


@pytest.fixture(scope="module")
def pictures(folder):
    return write_pictures(folder / "pictures")


def write_model(path, precision):
    detector = make_detector()
    spec = describe.describe(detector, input_hw=(64, 96), class_names=NAMES)
    spec = dataclasses.replace(spec, nms="graph", precision=precision, score_threshold=0.05)
    path.write_bytes(graph.build_graph(detector, spec).SerializeToString())
    return path


@pytest.fixture(scope="module")
def float_onnx(folder):
    return write_model(folder / "tiny.onnx", "fp32")


@pytest.fixture(scope="module")
def half_onnx(folder):
    return write_model(folder / "tiny16.onnx", "fp16")


@pytest.fixture(scope="module")
def annotations(folder, float_onnx, pictures):
    """What the float model finds, as if it were the truth: its own AP is 100."""
    images, boxes = [], []
    with Detector(float_onnx) as detector:
        for i, path in enumerate(sorted(pictures.iterdir())):
            images.append({"id": i, "file_name": path.name, "height": 48, "width": 80})
            found = detector(cv2.imread(str(path)))
            for (x1, y1, x2, y2), class_id in list(zip(found.boxes.tolist(), found.class_ids.tolist(), strict=True))[
                :10
            ]:
                box = [x1, y1, x2 - x1, y2 - y1]
                boxes.append({"id": len(boxes) + 1, "image_id": i, "category_id": class_id + 1, "bbox": box,
                              "area": box[2] * box[3], "iscrowd": 0})  # fmt: skip
    assert len(boxes) > 50
    path = folder / "truth.json"
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(NAMES)]
    path.write_text(json.dumps({"images": images, "annotations": boxes, "categories": categories}))
    return path


@pytest.fixture(scope="module")
def calibrated(folder, half_onnx, pictures):
    """The half model in INT8, its record and its request."""
    request = CalibrationRequest(half_onnx, pictures, folder / "tiny.int8.onnx", num_images=MIN_IMAGES, probe_images=2)
    return request.output, calibrate.calibrate(request), request


class TestImages:
    def test_same_choice_every_time(self, tmp_path):
        write_pictures(tmp_path, 24)
        first, again = (choose_images(tmp_path, 20, seed=3) for _ in range(2))
        assert first == again
        assert len(first) == 20
        assert first.names != choose_images(tmp_path, 20, seed=4).names

    def test_digest_is_of_the_contents(self, tmp_path):
        write_pictures(tmp_path)
        before = choose_images(tmp_path, MIN_IMAGES).digest
        cv2.imwrite(str(tmp_path / "003.png"), np.zeros((8, 8, 3), np.uint8))
        assert choose_images(tmp_path, MIN_IMAGES).digest != before

    def test_unreadable_files_are_named_and_left_out(self, tmp_path):
        write_pictures(tmp_path, 20)
        (tmp_path / "bad.png").write_bytes(b"no picture")
        (tmp_path / "notes.txt").write_text("no picture either")
        found = choose_images(tmp_path, 32)
        assert found.skipped == ("bad.png",)
        assert len(found) == 20

    def test_too_few(self, tmp_path):
        write_pictures(tmp_path, 3)
        (tmp_path / "bad.png").write_bytes(b"no picture")
        with pytest.raises(InputError, match=r"3 readable pictures, 1 more cannot be read \(bad.png\).*at least 16"):
            choose_images(tmp_path, 64)

    def test_images_of_the_wrong_kind(self, tmp_path):
        for i in range(20):
            (tmp_path / f"{i}.npy").write_bytes(b"x")
        with pytest.raises(InputError, match="0 readable pictures"):
            choose_images(tmp_path, 64)

    def test_no_folder(self, tmp_path):
        with pytest.raises(InputError, match="no such folder"):
            choose_images(tmp_path / "missing", 64)

    def test_prepared_as_at_run_time(self, pictures, float_onnx):
        spec = read_spec(float_onnx)
        chosen = choose_images(pictures, MIN_IMAGES)
        with Detector(float_onnx) as detector:
            for name, batch in zip(chosen.names, chosen.inputs(spec), strict=True):
                prepared = detector.prepare([cv2.imread(str(pictures / name))])
                np.testing.assert_array_equal(batch, prepared.inputs)


class TestHistogram:
    @staticmethod
    def of(values, parts=3):
        histogram = Histogram()
        for part in np.array_split(np.asarray(values, np.float32), parts):
            histogram.add(part)
        return histogram

    def test_nothing_but_zeros(self):
        histogram = self.of(np.zeros(30))
        assert [histogram.range(method) for method in METHODS] == [0.0] * 4

    def test_max_is_the_largest_magnitude(self):
        assert self.of([0.5, -3.25, 1]).range("max") == 3.25

    def test_percentile_drops_outliers(self):
        values = np.concatenate((np.random.default_rng(0).uniform(-1, 1, 200_000), [50.0]))
        assert 0.9 < self.of(values).range("percentile") < 1.2

    @pytest.mark.parametrize("method", ["mse", "entropy"])
    def test_outliers_are_clipped_and_uniform_values_are_not(self, method):
        rng = np.random.default_rng(0)
        normal = rng.normal(size=300_000)
        assert self.of(np.concatenate((normal, [60.0]))).range(method) < 30
        assert self.of(rng.uniform(-1, 1, 100_000)).range(method) > 0.9

    def test_mse_is_the_best_of_all_ranges(self):
        values = np.random.default_rng(1).laplace(size=100_000).astype(np.float32)

        def error(limit):
            step = limit / STEPS
            return float(np.square(np.clip(np.round(values / step), -STEPS, STEPS) * step - values).mean())

        found = error(self.of(values).range("mse"))
        assert found <= 1.02 * min(error(limit) for limit in np.linspace(1, np.abs(values).max(), 200))

    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=60), st.integers(1, 5))
    def test_counts_everything_however_it_comes(self, values, parts):
        histogram = self.of(values, parts)
        assert histogram.counts.sum() == len(values)
        assert histogram.largest == np.abs(np.asarray(values, np.float32)).max()
        assert histogram.width == 0 or histogram.width * BINS >= histogram.largest * (1 - 1e-6)
        for method in METHODS:
            assert 0 <= histogram.range(method) <= histogram.largest


def conv_net(second_groups=1, activation="Relu"):
    """Two convolutions with an activation between them; uint8 in, so that sessions take it."""
    rng = np.random.default_rng(5)
    widths = np.geomspace(0.01, 10, 8).astype(np.float32)
    first = rng.normal(size=(8, 3, 3, 3)).astype(np.float32) * widths[:, None, None, None]
    second = rng.normal(size=(8, 8 // second_groups, 3, 3)).astype(np.float32)
    weights = {"w1": first, "b1": np.float32(100) * widths, "w2": second, "b2": np.zeros(8, "f4")}
    pads = {"pads": [1] * 4}
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], "cast", to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["x"], "transpose", perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["x", "w1", "b1"], ["y"], "conv1", **pads),
        helper.make_node(activation, ["y"], ["z"], "act"),
        helper.make_node("Conv", ["z", "w2", "b2"], ["out"], "conv2", group=second_groups, **pads),
    ]
    inputs = [helper.make_tensor_value_info("images", TensorProto.UINT8, [1, 16, 16, 3])]
    outputs = [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 8, 16, 16])]
    initializers = [numpy_helper.from_array(values, name) for name, values in weights.items()]
    content = helper.make_graph(nodes, "net", inputs, outputs, initializers)
    model = helper.make_model(content, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def run(model, tensor="out", seed=0):
    picture = np.random.default_rng(seed).integers(0, 256, (1, 16, 16, 3), dtype=np.uint8)
    return open_session(model, [tensor]).run([tensor], {"images": picture})[0]


def noise_inputs(count=4):
    return [np.random.default_rng(i).integers(0, 256, (1, 16, 16, 3), dtype=np.uint8) for i in range(count)]


class TestEqualize:
    @pytest.mark.parametrize("groups", [1, 2, 8])
    @pytest.mark.parametrize("activation", ["Relu", "LeakyRelu"])
    def test_computes_the_same_with_even_channels(self, groups, activation):
        model = conv_net(groups, activation)
        expected, uneven = run(model), np.abs(run(model, "z")).max(axis=(0, 2, 3))
        links = equalize.find_links(model)
        assert [link.tensor for link in links] == ["z"]
        equalize.equalize(model, links, equalize.channel_ranges(model, links, noise_inputs(), 4, progress=False))
        np.testing.assert_allclose(run(model), expected, rtol=2e-5, atol=1e-3 * np.abs(expected).mean())
        even = np.abs(run(model, "z")).max(axis=(0, 2, 3))
        assert even.max() / even.min() < uneven.max() / uneven.min() / 3

    def test_not_through_a_sigmoid(self):
        assert equalize.find_links(conv_net(activation="Sigmoid")) == []

    def test_not_where_something_else_reads_it(self):
        model = conv_net()
        model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 8, 16, 16]))
        assert equalize.find_links(model) == []

    def test_not_with_shared_weights(self):
        model = conv_net()
        model.graph.node.append(helper.make_node("Conv", ["out", "w2", "b2"], ["more"], "conv3", pads=[1] * 4))
        assert equalize.find_links(model) == []

    def test_ranges_of_another_model(self):
        model = conv_net()
        with pytest.raises(CalibrationError, match="no ranges of the channels of z"):
            equalize.equalize(model, equalize.find_links(model), {"z": [1.0, 2.0]})


def quantized_net(groups=1):
    """``conv_net`` with pairs on input and weights of both convolutions, as Model Optimizer writes them."""
    model = conv_net(groups)
    nodes, tensors = list(model.graph.node), {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    added = []
    zero = numpy_helper.from_array(np.int8(0), "zero")
    model.graph.initializer.append(zero)
    for conv in [node for node in nodes if node.op_type == "Conv"]:
        for i, name in enumerate(conv.input[:2]):
            values = tensors.get(name)
            scale = np.float32(0.05 + 0.01 * len(added))
            zeros = "zero"
            attributes = {}
            if values is not None:
                scale = (np.abs(values).max(axis=(1, 2, 3)) / STEPS).astype(np.float32)
                zeros, attributes = f"{name}_zero", {"axis": 0}
                model.graph.initializer.append(numpy_helper.from_array(np.zeros(len(values), np.int8), zeros))
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(scale), f"{name}_scale"))
            pair = (f"{name}_q", f"{name}_dq")
            ends = [f"{name}_scale", zeros]
            added.append(helper.make_node("QuantizeLinear", [name, *ends], [pair[0]], pair[0], **attributes))
            added.append(helper.make_node("DequantizeLinear", [pair[0], *ends], [pair[1]], pair[1], **attributes))
            conv.input[i] = pair[1]
    ordered = nodes[:2] + [n for n in added if n.name.startswith(("x", "w"))] + nodes[2:4]
    ordered += [n for n in added if n.name.startswith("z_")] + nodes[4:]
    assert len(ordered) == len(nodes) + len(added)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in ordered]
    del model.graph.node[:]
    model.graph.node.extend(copies)
    onnx.checker.check_model(model, full_check=True)
    return qdq.QdqGraph(model)


class TestQdqGraph:
    def ranges(self, net):
        bare = qdq.without_pairs(net.model)
        return observe(bare, net.activations(), net.conv_inputs(), noise_inputs(), 4, progress=False)

    def test_layers_are_called_by_their_weights(self):
        assert [(layer.name, layer.kind) for layer in quantized_net().layers] == [("w1", "Conv"), ("w2", "Conv")]

    def test_without_pairs_is_the_float_model(self):
        np.testing.assert_array_equal(run(qdq.without_pairs(quantized_net().model)), run(conv_net()))

    def test_channels_whose_weights_vanish_have_a_scale_in_half(self):
        """EfficientNet's dead channels: absmax / 127 is 0, or underflows in half, and TensorRT refuses that."""
        net = quantized_net()
        tensors = {tensor.name: tensor for tensor in net.model.graph.initializer}
        values = numpy_helper.to_array(tensors["w1"]).copy()
        values[0], values[1] = 0, 1e-9
        tensors["w1"].CopyFrom(numpy_helper.from_array(values, "w1"))
        scales = np.abs(values).max(axis=(1, 2, 3)) / STEPS
        tensors["w1_scale"].CopyFrom(numpy_helper.from_array(scales.astype(np.float32), "w1_scale"))
        ranges, means = self.ranges(net)
        model = net.quantized(ranges["max"], means)
        found = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        assert (found["w1_scale"].astype(np.float16) > 0).all()
        np.testing.assert_array_equal(found["w1_scale"][2:], scales[2:].astype(np.float32))
        assert np.isfinite(run(model)).all()

    def test_rounds_less_with_observed_ranges(self):
        net = quantized_net()
        ranges, means = self.ranges(net)
        exact = run(conv_net())
        errors = [np.abs(run(model) - exact).mean() for model in (net.model, net.quantized(ranges["mse"], means))]
        assert errors[1] < errors[0] / 10

    def test_folded_weights_compute_the_same_in_fewer_bytes(self):
        net = quantized_net()
        ranges, means = self.ranges(net)
        model = net.quantized(ranges["max"], means)
        expected, size = run(model), model.ByteSize()
        qdq.fold_weights(model)
        onnx.checker.check_model(model, full_check=True)
        np.testing.assert_array_equal(run(model), expected)
        assert model.ByteSize() < size
        assert qdq.count_layers(model) == {"quantized": 2, "convolutions": 2}

    @pytest.mark.parametrize("groups", [1, 8])
    def test_biases_take_off_what_rounding_adds_on_average(self, groups):
        net = quantized_net(groups)
        ranges, means = self.ranges(net)
        inputs = noise_inputs()

        def shift(model):
            names = ["out"]
            exact, rounded = (
                np.mean([s.run(names, {"images": x})[0] for x in inputs], axis=0)
                for s in (open_session(conv_net(groups), names), open_session(model, names))
            )
            # The border is counted like the inside, so that it says nothing
            return np.abs((rounded - exact)[..., 2:-2, 2:-2].mean(axis=(0, 2, 3))).sum()

        zeros = {name: [0.0] * len(values) for name, values in means.items()}
        wide = {name: 4 * value for name, value in ranges["max"].items()}  # activations are not clipped
        assert shift(net.quantized(wide, means)) < 0.8 * shift(net.quantized(wide, zeros))

    def test_float_layers_keep_their_biases(self):
        net = quantized_net()
        ranges, means = self.ranges(net)
        model = net.quantized(ranges["max"], means, ("w1", "w2"))
        np.testing.assert_array_equal(run(model), run(conv_net()))
        assert qdq.count_layers(model)["quantized"] == 0

    def test_missing_range_and_means(self):
        net = quantized_net()
        ranges, means = self.ranges(net)
        with pytest.raises(CalibrationError, match="1 tensors have no range, the first x"):
            net.quantized({"z": 1.0}, means)
        with pytest.raises(CalibrationError, match="no means of x"):
            net.quantized(ranges["max"], {"z": means["z"]})

    def test_activation_that_is_not_finite(self):
        model = conv_net()
        for tensor in model.graph.initializer:
            if tensor.name == "b1":
                tensor.CopyFrom(numpy_helper.from_array(np.full(8, np.inf, np.float32), "b1"))
        with pytest.raises(CalibrationError, match="z has values that are not finite"):
            observe(model, ["z"], [], noise_inputs(), 4, progress=False)


class TestCache:
    def test_round_trip(self, tmp_path):
        found = Observed({"t": [1.0, 2.0]}, {"max": {"t": 2.0}}, {"t": [-0.5, 0.25]}, "m" * 64, "i" * 64, ("a.png",))
        found.write(tmp_path / "cache.json")
        assert Observed.read(tmp_path / "cache.json", "m" * 64) == found

    def test_of_another_model(self, calibrated, float_onnx):
        output, _, request = calibrated
        cache = request.beside(".calibration.json")
        assert Observed.read(cache, sha256(request.onnx)).images == choose_images(request.images, MIN_IMAGES).names
        with pytest.raises(CalibrationError, match=r"was made for the model .* do not fit"):
            calibrate.calibrate(dataclasses.replace(request, onnx=float_onnx, cache=cache))
        assert output.is_file()

    @pytest.mark.parametrize(
        ("change", "found"),
        [
            (lambda values: values.pop("ranges"), "ranges"),
            (lambda values: values.update(format=9), "format other than"),
            (lambda values: values["ranges"]["max"].update(t=math.nan), "finite number"),
            (lambda values: values["ranges"].update(magic={"t": 1.0}), "magic"),
            (lambda values: values["channel_means"].update(t=["x"]), "finite number"),
        ],
    )
    def test_damaged(self, tmp_path, change, found):
        path = tmp_path / "cache.json"
        Observed({"t": [1.0]}, {"max": {"t": 2.0}}, {"t": [0.5]}, "m", "i", ()).write(path)
        values = json.loads(path.read_text())
        change(values)
        path.write_text(json.dumps(values))
        with pytest.raises(CalibrationError, match=found):
            Observed.read(path, "m")

    def test_gives_the_same_model_again(self, calibrated, tmp_path):
        output, record, request = calibrated
        again = dataclasses.replace(request, output=tmp_path / "again.onnx", cache=request.beside(".calibration.json"))
        assert calibrate.calibrate(again) == record
        assert again.output.read_bytes() == output.read_bytes()


class TestSearch:
    @given(st.integers(1, 60), st.integers(1, 80))
    def test_fewest_is_the_first_that_passes(self, most, needed):
        tried = []

        def passes(count):
            tried.append(count)
            return count >= needed

        assert sensitivity.fewest(most, passes) == (needed if needed <= most else None)
        assert len(tried) == len(set(tried))

    @given(st.sets(st.integers(0, 29), max_size=4))
    def test_wrong_layers_are_found(self, bad):
        layers = [f"layer{i}" for i in range(30)]

        def lost_db(kept):
            return 20.0 if any(f"layer{i}" not in kept for i in bad) else 0.2

        assert set(agreement.wrong_layers(layers, lost_db, progress=False)) == {f"layer{i}" for i in bad}

    def test_journal_goes_on_and_is_refused_for_another_search(self, tmp_path):
        path = tmp_path / "journal.json"
        journal = sensitivity.Journal(path, {"model": "a"})
        journal.add_layer(sensitivity.Sensitivity("w1", "Conv", 31.5))
        assert journal.trial("reference", lambda: {"AP": 30.0}) == {"AP": 30.0}
        again = sensitivity.Journal(path, {"model": "a"})
        assert again.layers["w1"].snr_db == 31.5
        assert again.trial("reference", lambda: pytest.fail("measured twice")) == {"AP": 30.0}
        assert sensitivity.Journal(path, {"model": "b"}).layers == {}

    def test_ranking(self, tmp_path):
        journal = sensitivity.Journal(tmp_path / "journal.json", {})
        for name, snr_db, drop in (("a", 40.0, None), ("b", 30.0, 0.1), ("c", 35.0, 2.0), ("d", 20.0, None)):
            journal.add_layer(sensitivity.Sensitivity(name, "Conv", snr_db, drop))
        assert [row.layer for row in journal.ranking(0.3)] == ["c", "d", "b", "a"]

    def test_signal_to_noise(self):
        signal = [[np.full(4, 10.0, np.float32)]]
        assert sensitivity.signal_to_noise(signal, [[np.full(4, 11.0, np.float32)]]) == pytest.approx(20)
        assert sensitivity.signal_to_noise(signal, signal) == sensitivity.MOST_DB

    def test_the_picture_shows_the_worst_layers(self, tmp_path):
        ranking = [sensitivity.Sensitivity(f"layer{i}", "Conv", 20.0 + i) for i in range(sensitivity.BARS + 5)]
        sensitivity.draw(tmp_path / "s.svg", "the model", ranking, ["layer3"])
        picture = (tmp_path / "s.svg").read_text()
        assert all(text in picture for text in ("the model", "layer0<", "kept float", "INT8"))
        assert f"layer{sensitivity.BARS}<" not in picture


class TestPlacement:
    def test_head_normalisation_and_decode_stay_float(self, float_onnx):
        model, _ = load_contract(float_onnx)
        stays = placement.float_nodes(model)
        finals = placement.final_outputs(model)
        assert len(finals) == 6  # classes and edges of three levels
        for node in model.graph.node:
            if node.op_type in ("Sigmoid", "Softmax", "Sub") or (set(node.output) & set(finals)):
                assert node.name in stays
        convs = [node for node in model.graph.node if node.op_type == "Conv"]
        assert sum(node.name not in stays for node in convs) == len(convs) - 6

    def test_already_quantized(self, calibrated, tmp_path):
        output, _, request = calibrated
        with pytest.raises(CalibrationError, match="is quantized already"):
            calibrate.calibrate(dataclasses.replace(request, onnx=output, output=tmp_path / "twice.onnx"))
        assert not list(tmp_path.iterdir())

    def test_opset_too_old(self, float_onnx, tmp_path, pictures):
        model = onnx.load(float_onnx)
        model.opset_import[0].version = 12
        with pytest.raises(CalibrationError, match="opset 12, scales per channel need 13"):
            placement.check_quantizable(model, "old.onnx")


class TestCalibrate:
    def test_every_convolution_but_the_last_ones(self, calibrated):
        output, record, _ = calibrated
        model, spec = load_contract(output)
        assert record["quantized"] == spec.quantized_layers <= record["convolutions"] - 6  # and none of few channels
        assert record["float_layers"] == []
        assert record["measured"] is None
        assert qdq.count_layers(model)["quantized"] == spec.quantized_layers > 20
        kept = {prop.key: prop.value for prop in model.metadata_props}
        assert json.loads(kept[calibrate.RECORD_KEY]) == record

    def test_computes_nearly_what_the_half_model_computes(self, calibrated, half_onnx, pictures):
        inputs = list(choose_images(pictures, MIN_IMAGES).inputs(read_spec(half_onnx)))[:4]
        outputs = []
        for path in (half_onnx, calibrated[0]):
            with Detector(path, "onnxruntime", "host") as detector:
                outputs.append([list(detector.backend.run(batch).values()) for batch in inputs])
        assert sensitivity.signal_to_noise(*outputs) > 12

    def test_weights_are_int8_and_the_rest_is_half(self, calibrated):
        model = onnx.load(calibrated[0])
        kinds = {}
        for tensor in model.graph.initializer:
            kinds[tensor.data_type] = kinds.get(tensor.data_type, 0) + int(np.prod(tensor.dims))
        assert kinds[TensorProto.INT8] > 10 * kinds.get(TensorProto.FLOAT, 0)
        scales = [node.input[1] for node in model.graph.node if node.op_type == "QuantizeLinear"]
        types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
        assert {types[name] for name in scales} == {TensorProto.FLOAT16}

    def test_float_model_for_the_cpu(self, float_onnx, pictures, annotations, tmp_path):
        request = CalibrationRequest(
            float_onnx, pictures, tmp_path / "cpu.int8.onnx", num_images=MIN_IMAGES, probe_images=1,
            annotations=annotations, eval_images=pictures, max_ap_drop=60.0, always_rank=True,
        )  # fmt: skip
        record = calibrate.calibrate(request)
        assert record["target"] == "cpu"
        assert record["measured"]["reference"]["AP"] > 90
        assert record["measured"]["drop"] <= 60.0
        assert {path.name for path in tmp_path.iterdir()} == {
            "cpu.int8.onnx", "cpu.int8.calibration.json", "cpu.int8.sensitivity.json", "cpu.int8.sensitivity.svg"
        }  # fmt: skip
        table = json.loads((tmp_path / "cpu.int8.sensitivity.json").read_text())
        assert len(table["layers"]) > 10
        kinds = {row["kind"] for row in table["layers"]}
        assert kinds == {"Conv"}

    def test_the_gate_trips_and_writes_nothing(self, float_onnx, pictures, annotations, tmp_path, monkeypatch):
        monkeypatch.setattr(calibrate, "AP_LAYERS", 1)
        full = len(quantized_layers_of(float_onnx, pictures, tmp_path))
        monkeypatch.setattr(calibrate._Search, "_metrics", lambda self, backend, limit: {"AP": float("nan")})
        measured = []

        def metrics(self, backend, limit):
            measured.append(backend.spec.quantized_layers)
            return {"AP": 50.0 if not measured[-1] else 10.0}

        monkeypatch.setattr(calibrate._Search, "_metrics", metrics)
        request = CalibrationRequest(
            float_onnx, pictures, tmp_path / "bad.int8.onnx", num_images=MIN_IMAGES, probe_images=1,
            annotations=annotations, eval_images=pictures, max_ap_drop=0.3,
        )  # fmt: skip
        with pytest.raises(CalibrationError, match=r"costs more than 0.3 AP.*10.00 at best, 50.00 without"):
            calibrate.calibrate(request)
        assert not request.output.exists()
        assert min(count for count in measured if count) < full  # it tried with layers kept float

    def test_keeps_layers_float_until_it_passes(self, float_onnx, pictures, annotations, tmp_path, monkeypatch):
        monkeypatch.setattr(calibrate, "AP_LAYERS", 0)
        full = len(quantized_layers_of(float_onnx, pictures, tmp_path))

        def metrics(self, backend, limit):
            quantized = backend.spec.quantized_layers
            return {"AP": 30.0 if quantized == 0 else 30.0 - 0.1 * max(0, quantized - full + 6)}

        monkeypatch.setattr(calibrate._Search, "_metrics", metrics)
        request = CalibrationRequest(
            float_onnx, pictures, tmp_path / "some.int8.onnx", num_images=MIN_IMAGES, probe_images=1,
            annotations=annotations, eval_images=pictures, max_ap_drop=0.31,
        )  # fmt: skip
        record = calibrate.calibrate(request)
        assert record["measured"]["drop"] <= 0.31
        assert 1 <= len(record["float_layers"]) <= 3  # some layers are several convolutions
        assert full - 8 < record["quantized"] <= full - 3

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"annotations": "truth.json"}, "belong together"),
            ({"eval_limit": 5}, "without --annotations"),
            ({"max_ap_drop": -1.0}, "expected 0 or more"),
            ({"probe_images": 0}, "expected at least 1"),
            ({"num_images": 4}, "at least 16"),
            ({"target": "cpu"}, "is fp16, and what stays float for --target cpu is fp32"),
            ({"output": "out.engine"}, "expected another .onnx file"),
        ],
    )
    def test_bad_requests(self, half_onnx, pictures, tmp_path, changes, message):
        paths = {key: tmp_path / value for key, value in changes.items() if key in ("annotations", "output")}
        request = CalibrationRequest(half_onnx, pictures, tmp_path / "out.onnx")
        with pytest.raises(InputError, match=message):
            calibrate.calibrate(dataclasses.replace(request, **{**changes, **paths}))
        assert not list(tmp_path.iterdir())


def quantized_layers_of(float_onnx, pictures, folder):
    """Names of the layers that calibration for the CPU makes INT8."""
    request = CalibrationRequest(float_onnx, pictures, folder / "all.int8.onnx", num_images=MIN_IMAGES, probe_images=1)
    record = calibrate.calibrate(request)
    return range(record["quantized"])


class TestEngine:
    def test_int8_engine_from_the_command_line(self, calibrated, tmp_path, capsys):
        pytest.importorskip("tensorrt_rtx")
        output, record, _ = calibrated
        arguments = ["--int8", "--onnx", str(output), "--target", "sm75", "-o", str(tmp_path)]
        assert to_trt.main(arguments) == 0
        engine = capsys.readouterr().out.strip()
        assert "-int8-fp16-rtx-sm75.engine" in engine
        sidecar = json.loads(next(tmp_path.glob("*.json")).read_text())
        assert sidecar["spec"]["quantized_layers"] == record["quantized"]

    def test_another_count_is_refused(self, calibrated, tmp_path):
        pytest.importorskip("tensorrt_rtx")
        model, spec = load_contract(calibrated[0])
        wrong = dataclasses.replace(spec, quantized_layers=spec.quantized_layers + 1)
        del model.metadata_props[:]
        for key, value in wrong.to_metadata().items():
            model.metadata_props.add(key=key, value=value)
        path = tmp_path / "wrong.onnx"
        path.write_bytes(model.SerializeToString())
        from gfl_edge.engine.build import BuildPlan, build_engine

        with pytest.raises(PrecisionError, match=f"declared to have {wrong.quantized_layers} convolutions in INT8"):
            build_engine(BuildPlan(path, "rtx", ("sm75",)), tmp_path, progress=False)

    def test_calibrates_by_itself(self, half_onnx, pictures, tmp_path, capsys):
        pytest.importorskip("tensorrt_rtx")
        arguments = ["--int8", "--onnx", str(half_onnx), "--calib-images", str(pictures), "--num-images", "16"]
        assert to_trt.main([*arguments, "--probe-images", "1", "--target", "sm86", "-o", str(tmp_path)]) == 0
        assert list(tmp_path.glob("*-int8-fp16.onnx"))
        assert list(tmp_path.glob("*-int8-fp16-rtx-sm86.engine"))
        assert "convolutions INT8" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--int8", "--onnx", "{half}"], "is not INT8 yet.*--calib-images"),
            (["--fp16", "--onnx", "{int8}"], "is INT8, 'fp16' was requested.*--int8"),
            (["--int8", "--bf16", "--onnx", "{int8}"], "what is not INT8 is FP16"),
        ],
    )
    def test_what_does_not_fit(self, calibrated, half_onnx, capsys, tmp_path, arguments, message):
        names = {"half": half_onnx, "int8": calibrated[0]}
        words = [word.format(**names) for word in arguments]
        assert to_trt.main([*words, "-o", str(tmp_path)]) == 1
        assert re.search(message, capsys.readouterr().err)
