"""Calibration as a whole: the INT8 file, its record, and the AP that it may cost.

What INT8 costs in AP depends on what a run time rounds first. So searches measure with a gauge of the tests' own.
"""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from calib import equalize, observed, qdq
from calib.arguments import CalibrationRequest
from calib.candidates import FloatModel
from calib.gauge import Gauge
from calib.images import choose_images
from calib.noise import Decoded, signal_to_noise
from calib.record import RECORD_KEY, Accuracy, CalibrationRecord
from calib.run import calibrate
from calib.search import MIN_SHARE
from gfl_edge.detector import Detector
from gfl_edge.errors import CalibrationError, GflEdgeError, InputError
from gfl_edge.ops.onnx_graph import OnnxGraph, open_session
from gfl_edge.spec import load_contract, read_spec, spec_of
from tests.support.calibration import IMAGES

pytestmark = pytest.mark.usefixtures("one_thread")


class TestFile:
    def test_every_convolution_but_the_last_ones(self, calibrated):
        found, _ = calibrated
        model, spec = load_contract(found.path)
        record = found.record
        assert spec == found.spec
        assert record.quantized == spec.quantized_layers <= record.convolutions - 6
        assert record.quantized >= MIN_SHARE * record.convolutions
        assert record.measured is None
        assert qdq.count_layers(model)["quantized"] == spec.quantized_layers > 20

    def test_the_record_is_in_the_file(self, calibrated):
        found, _ = calibrated
        metadata = {prop.key: prop.value for prop in onnx.load(found.path).metadata_props}
        assert json.loads(metadata[RECORD_KEY]) == found.record.to_dict()
        assert CalibrationRecord.from_metadata(metadata) == found.record
        assert list(found.record.to_dict()) == [
            "method", "snr_db", "target", "calibration_images", "calibration_sha256", "model_sha256", "quantized",
            "convolutions", "float_layers", "measured", "versions",
        ]  # fmt: skip

    def test_computes_nearly_what_the_half_model_computes(self, calibrated, half_onnx, calib_images):
        inputs = list(choose_images(calib_images, IMAGES).inputs(read_spec(half_onnx)))[:4]
        decoded = []
        for path in (half_onnx, calibrated[0].path):
            with Detector(path, "onnxruntime", "host") as detector:
                runs = [detector.backend.run(batch) for batch in inputs]
                decoded.append([Decoded.of(run, detector.backend.spec, (64, 96)) for run in runs])
        assert signal_to_noise(*decoded) > 12

    def test_weights_are_int8_and_the_rest_is_half(self, calibrated):
        model = onnx.load(calibrated[0].path)
        kinds = {}
        for tensor in model.graph.initializer:
            kinds[tensor.data_type] = kinds.get(tensor.data_type, 0) + int(np.prod(tensor.dims))
        assert kinds[TensorProto.INT8] > 10 * kinds.get(TensorProto.FLOAT, 0)
        scales = [node.input[1] for node in model.graph.node if node.op_type == "QuantizeLinear"]
        types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
        assert {types[name] for name in scales} == {TensorProto.FLOAT16}

    def test_float_model_for_the_cpu(self, float_onnx, calib_images, annotations, tmp_path):
        """By the libraries that are really there; INT8 may cost anything."""
        request = CalibrationRequest(
            float_onnx, calib_images, tmp_path / "cpu.int8.onnx", num_images=IMAGES, probe_images=1,
            annotations=annotations, eval_images=calib_images, max_ap_drop=100.0,
        )  # fmt: skip
        record = calibrate(request).record
        assert record.target == "cpu"
        assert record.quantized >= MIN_SHARE * record.convolutions
        assert record.measured.reference.AP > 90
        assert record.measured.drop == pytest.approx(record.measured.reference.AP - record.measured.AP)
        assert (record.measured.annotations, record.measured.backend) == ("truth.json", "openvino")
        metadata = {prop.key: prop.value for prop in onnx.load(request.output).metadata_props}
        assert CalibrationRecord.from_metadata(metadata) == record
        assert {path.name for path in tmp_path.iterdir()} == {
            "cpu.int8.onnx", "cpu.int8.calibration.json", "cpu.int8.sensitivity.json", "cpu.int8.sensitivity.svg"
        }  # fmt: skip
        table = json.loads((tmp_path / "cpu.int8.sensitivity.json").read_text())
        assert len(table["layers"]) > 10
        assert {row["kind"] for row in table["layers"]} == {"Conv"}

    def test_last_bits_of_activations_do_not_reach_the_file(self, calibrated, tmp_path, monkeypatch):
        """Processors differ by about a millionth; where one of thousands of numbers turns, a tensor or two follow."""
        found, request = calibrated
        rng = np.random.default_rng(0)

        class Shaken:
            def __init__(self, *arguments):
                self.session = open_session(*arguments)

            def run(self, *arguments):
                runs = self.session.run(*arguments)
                return [x * rng.uniform(1 - 1e-6, 1 + 1e-6, x.shape).astype(np.float32) for x in runs]

        monkeypatch.setattr(observed, "open_session", Shaken)
        monkeypatch.setattr(equalize, "open_session", Shaken)
        again = calibrate(dataclasses.replace(request, output=tmp_path / "again.int8.onnx"))
        before, after = (
            {tensor.name: tensor.SerializeToString() for tensor in onnx.load(path).graph.initializer}
            for path in (found.path, again.path)
        )
        assert before.keys() == after.keys()
        assert sum(before[name] != after[name] for name in before) <= 3 < len(before) / 20


class TestGate:
    """With a gauge by which INT8 costs a point of AP for every convolution beyond those that are allowed.

    The first that is measured has as many layers float as the noise asks for.
    """

    @pytest.fixture
    def request_for(self, calib_images, annotations, tmp_path):
        def make(onnx_file):
            return CalibrationRequest(
                onnx_file, calib_images, tmp_path / "m.int8.onnx", num_images=IMAGES, probe_images=1,
                annotations=annotations, eval_images=calib_images, max_ap_drop=0.3,
            )  # fmt: skip

        return make

    @pytest.fixture
    def gauge(self, monkeypatch):
        """Allows as many convolutions less than at first; None: none at all. Returns those of every model measured."""

        def allow(fewer):
            measured = []

            def measure(self, model):
                quantized = spec_of(model, "the candidate").quantized_layers
                measured.append(quantized)
                full = next((count for count in measured if count), 0)
                beyond = 20 if fewer is None else max(0, quantized - (full - fewer))
                return Accuracy(30.0 - beyond if quantized else 30.0, 0.0, 0.0, 1)

            monkeypatch.setattr(Gauge, "measure", measure)
            return measured

        return allow

    def test_keeps_as_few_layers_float_as_pass(self, half_onnx, request_for, gauge, monkeypatch):
        measured, request = gauge(fewer=5), request_for(half_onnx)
        found = calibrate(request)
        record, full = found.record, measured[1]
        assert dataclasses.asdict(record.measured) == {
            "AP": 30.0, "AP50": 0.0, "AP75": 0.0, "images": 1, "drop": 0.0, "annotations": "truth.json",
            "backend": "onnxruntime", "reference": {"AP": 30.0, "AP50": 0.0, "AP75": 0.0, "images": 1},
        }  # fmt: skip
        assert 0 < record.quantized <= full - 5
        journal = json.loads(request.beside(".sensitivity.json").read_text())
        # The layers that are listed are float in the file, and no other that could be INT8
        layers = {row["layer"] for row in journal["layers"]}
        assert float_layers(onnx.load(found.path)) & layers == set(record.float_layers) != layers
        # One layer fewer costs too much
        tried = {tuple(row["float_layers"]): row["AP"] for row in journal["trials"]}
        assert tried[tuple(record.float_layers)] == 30.0
        assert tried[tuple(record.float_layers[:-1])] < 29.7

    def test_trips_and_writes_nothing(self, float_onnx, request_for, gauge, monkeypatch):
        measured, request = gauge(fewer=None), request_for(float_onnx)
        with pytest.raises(CalibrationError, match=r"costs more than 0.3 AP.*10.00 at best, 30.00 without"):
            calibrate(request)
        assert not request.output.exists()
        assert request.beside(".sensitivity.svg").is_file()
        assert 0 < min(count for count in measured if count) < measured[1]  # it tried with layers kept float


def float_layers(model):
    """Layers of which no input is dequantized, by the names that calibration gives them."""
    graph = OnnxGraph(model)
    found = set()
    for node in graph.nodes:
        makers = [graph.producers.get(name) for name in node.input]
        if not any(maker is not None and maker.op_type == "DequantizeLinear" for maker in makers):
            found.add(node.input[1].removesuffix(".weight") if node.op_type == "Conv" else node.output[0])
    return found


def test_an_fp16_file_for_a_cpu_is_computed_in_float32(half_onnx, calib_images, tmp_path):
    """So that one file serves both targets where its checkpoint is not at hand."""
    request = CalibrationRequest(half_onnx, calib_images, tmp_path / "out.onnx", target="cpu")
    model = FloatModel.load(request)
    assert model.spec == dataclasses.replace(read_spec(half_onnx), precision="fp32")
    assert TensorProto.FLOAT16 not in {tensor.data_type for tensor in model.whole().graph.initializer}
    onnx.checker.check_model(model.whole(), full_check=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"annotations": "truth.json"}, "belong together"),
        ({"eval_limit": 5}, "without --annotations"),
        ({"max_ap_drop": -1.0}, "expected 0..100"),
        ({"probe_images": 0}, "expected a whole number, 1"),
        ({"min_snr_db": -1.0}, "min-snr-db.* expected 0..140"),
        ({"num_images": 4}, "at least 16"),
        ({"output": "out.engine"}, "expected another .onnx file"),
    ],
)
def test_bad_requests(half_onnx, calib_images, tmp_path, changes, message):
    paths = {key: tmp_path / value for key, value in changes.items() if key in ("annotations", "output")}
    request = CalibrationRequest(half_onnx, calib_images, tmp_path / "out.onnx")
    with pytest.raises(InputError, match=message):
        calibrate(dataclasses.replace(request, **{**changes, **paths}))
    assert not list(tmp_path.iterdir())


def test_a_link_in_a_circle(half_onnx, calib_images, tmp_path):
    loop = tmp_path / "loop.onnx"
    loop.symlink_to(loop)
    request = CalibrationRequest(half_onnx, calib_images, tmp_path / "out.onnx")
    for changes in ({"onnx": loop}, {"output": loop}):
        with pytest.raises(GflEdgeError, match=r"loop\.onnx"):
            calibrate(dataclasses.replace(request, **changes))
