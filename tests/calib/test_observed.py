"""The file that keeps what the activations look like."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

from calib.images import MIN_IMAGES, choose_images
from calib.observed import Observed
from calib.run import calibrate
from gfl_edge.errors import CalibrationError
from gfl_edge.files import sha256

pytestmark = pytest.mark.usefixtures("one_thread")


class TestCache:
    def test_round_trip(self, tmp_path):
        found = Observed({"t": [1.0, 2.0]}, {"max": {"t": 2.0}}, {"t": [-0.5, 0.25]}, "m" * 64, "i" * 64, ("a.png",))
        found.write(tmp_path / "cache.json")
        assert Observed.read(tmp_path / "cache.json", "m" * 64) == found

    def test_of_another_model(self, calibrated, float_onnx):
        found, request = calibrated
        cache = request.beside(".calibration.json")
        assert Observed.read(cache, sha256(request.onnx)).images == choose_images(request.images, MIN_IMAGES).names
        with pytest.raises(CalibrationError, match=r"was made for the model .* do not fit"):
            calibrate(dataclasses.replace(request, onnx=float_onnx, cache=cache))
        assert found.path.is_file()

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
        found, request = calibrated
        again = dataclasses.replace(request, output=tmp_path / "again.onnx", cache=request.beside(".calibration.json"))
        assert calibrate(again).record == found.record
        assert again.output.read_bytes() == found.path.read_bytes()
