"""The file that keeps what the activations look like."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calib.images import MIN_IMAGES, choose_images
from calib.observed import RANGE_BITS, Observed, rounded_up
from calib.run import calibrate
from gfl_edge.errors import CalibrationError
from gfl_edge.files import sha256

pytestmark = pytest.mark.usefixtures("one_thread")


class TestCache:
    def test_round_trip(self, tmp_path):
        ranges, bounds = {"max": {"t": 2.0}}, {"t": [-0.5, 2.0]}
        found = Observed({"t": [1.0, 2.0]}, ranges, bounds, {"t": [-0.5, 0.25]}, "0" * 64, "1" * 64, ("a.png",))
        found.write(tmp_path / "cache.json")
        assert Observed.read(tmp_path / "cache.json", "0" * 64) == found

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
            (lambda values: values.pop("ranges"), "missing ranges"),
            (lambda values: values.update(ranges={}), r"ranges: \{\}: expected a table that is not empty"),
            (lambda values: values.update(format=9), "format 9, this gfl_edge reads 3"),
            (lambda values: values.update(format=True), "format True, this gfl_edge reads 3"),
            (lambda values: values["ranges"]["max"].update(t=math.nan), "NaN is no number"),
            (lambda values: values["ranges"]["max"].update(t=-1), r"ranges\.max\.t -1: expected 0\.\."),
            (lambda values: values["ranges"]["max"].update(t=1e300), r"ranges\.max\.t 1e\+300: expected 0\.\."),
            (lambda values: values["ranges"]["max"].update(t=True), r"ranges\.max\.t True: expected a number"),
            (
                lambda values: values["ranges"].update(magic={"t": 1.0}),
                "no such entry: expected '",
            ),
            (lambda values: values["bounds"].update(t=[-1e300, 1.0]), r"bounds\.t\[0\] -1e\+300: expected"),
            (lambda values: values["channel_means"].update(t=["x"]), r"channel_means\.t\[0\] 'x': expected a number"),
            (lambda values: values.update(images="a.png"), "images 'a.png': expected a list"),
            (lambda values: values.update(model_sha256="m"), "model_sha256 'm': expected a text that fits"),
            (lambda values: values.update(more=1), "more: no such field"),
        ],
    )
    def test_damaged(self, tmp_path, change, found):
        path = tmp_path / "cache.json"
        Observed({"t": [1.0]}, {"max": {"t": 2.0}}, {"t": [0.0, 2.0]}, {"t": [0.5]}, "0" * 64, "1" * 64, ()).write(path)
        values = json.loads(path.read_text())
        change(values)
        path.write_text(json.dumps(values))
        with pytest.raises(CalibrationError, match=f"{found}.*Leave out --cache to calibrate"):
            Observed.read(path, "0" * 64)

    @pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"[" * 10**5, b'{"format": 1' + b"0" * 10**5 + b"}"])
    def test_none(self, tmp_path, content):
        (tmp_path / "cache.json").write_bytes(content)
        with pytest.raises(CalibrationError, match=r"cache\.json.*Leave out --cache to calibrate"):
            Observed.read(tmp_path / "cache.json", "0" * 64)

    def test_clips_where_values_end(self):
        observed = Observed({}, {"max": {"t": 2.0, "u": 3.0}}, {"t": [0.0, 2.5], "u": [-3.0, 1.0]}, {}, "m", "i", ())
        assert observed.clipped("max") == {"t": (0.0, 2.0), "u": (-3.0, 1.0)}
        with pytest.raises(CalibrationError, match="no ranges by mse"):
            observed.clipped("mse")
        with pytest.raises(CalibrationError, match="no bounds of t"):
            dataclasses.replace(observed, bounds={}).clipped("max")

    def test_gives_the_same_model_again(self, calibrated, tmp_path):
        found, request = calibrated
        again = dataclasses.replace(request, output=tmp_path / "again.onnx", cache=request.beside(".calibration.json"))
        assert calibrate(again).record == found.record
        assert again.output.read_bytes() == found.path.read_bytes()


@given(st.floats(0, 1e30))
def test_ranges_keep_few_digits_and_all_values(magnitude):
    found = rounded_up(magnitude)
    assert magnitude <= found <= magnitude * (1 + 2.0 ** (1 - RANGE_BITS))
    assert rounded_up(found) == found
    assert np.float32(found) == found or found < 1e-30
