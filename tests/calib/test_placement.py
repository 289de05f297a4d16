"""Where Q/DQ pairs go."""

from __future__ import annotations

import dataclasses

import onnx
import pytest

from calib import placement
from calib.run import calibrate
from gfl_edge.errors import CalibrationError
from gfl_edge.spec import load_contract

pytestmark = pytest.mark.usefixtures("one_thread")


class TestPlacement:
    def test_head_normalization_and_decode_stay_float(self, float_onnx):
        model, _ = load_contract(float_onnx)
        stays = placement.float_nodes(model)
        for node in model.graph.node:
            if node.op_type in ("Sigmoid", "Softmax", "Sub"):
                assert node.name in stays
        finals = {node.input[1] for node in model.graph.node if node.op_type == "Conv" and node.name in stays}
        assert len(finals) == 2
        assert all("gfl_cls" in name or "gfl_reg" in name for name in finals)

    def test_already_quantized(self, calibrated, tmp_path):
        found, request = calibrated
        with pytest.raises(CalibrationError, match="is quantized already"):
            calibrate(dataclasses.replace(request, onnx=found.path, output=tmp_path / "twice.onnx"))
        assert not list(tmp_path.iterdir())

    def test_opset_too_old(self, float_onnx):
        model = onnx.load(float_onnx)
        model.opset_import[0].version = 12
        with pytest.raises(CalibrationError, match="opset 12, scales per channel need 13"):
            placement.check_quantizable(model, "old.onnx")
