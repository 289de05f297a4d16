"""INT8 engines: calibrated on the way, or from an INT8 file."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

from benchmarks.artifacts.contents import contents
from export import to_trt
from gfl_edge.engine.build import BuildPlan, build_engine
from gfl_edge.errors import InputError, PrecisionError
from gfl_edge.spec import load_contract, read_spec

pytestmark = pytest.mark.usefixtures("one_thread")


class TestEngine:
    def test_int8_engine_from_the_command_line(self, calibrated, tmp_path, capsys):
        pytest.importorskip("tensorrt_rtx")
        found, _ = calibrated
        arguments = ["--int8", "--onnx", str(found.path), "--target", "sm75", "-o", str(tmp_path)]
        assert to_trt.main(arguments) == 0
        engine, said = capsys.readouterr()
        assert "computes INT8 convolutions in FP16 on sm75" in said
        assert f"{found.record.quantized} of {found.record.convolutions} convolutions are INT8" in said
        assert "-int8-fp16-rtx-sm75.engine" in engine
        sidecar = json.loads(next(tmp_path.glob("*.json")).read_text())
        assert sidecar["spec"]["quantized_layers"] == found.record.quantized
        assert sidecar["int8_convolutions"] == found.record.quantized
        assert sidecar["convolutions"] == found.record.convolutions
        kernels = contents(Path(engine.strip()).read_bytes())
        assert kernels["rounding_kernels"] > kernels["rounding_kernels_to_int8"] + 5

    def test_another_count_is_refused(self, calibrated, tmp_path):
        pytest.importorskip("tensorrt_rtx")
        model, spec = load_contract(calibrated[0].path)
        wrong = dataclasses.replace(spec, quantized_layers=spec.quantized_layers + 1)
        del model.metadata_props[:]
        for key, value in wrong.to_metadata().items():
            model.metadata_props.add(key=key, value=value)
        path = tmp_path / "wrong.onnx"
        path.write_bytes(model.SerializeToString())
        with pytest.raises(PrecisionError, match=f"declared to have {wrong.quantized_layers} convolutions in INT8"):
            build_engine(BuildPlan(path, "rtx", ("sm75",)), tmp_path, progress=False)

    def test_of_a_file_for_cpus_is_refused(self, small_onnx, tmp_path):
        """TensorRT says of it: Non-zero zero point is not supported."""
        spec = dataclasses.replace(read_spec(small_onnx["fp32", "graph"]), quantized_layers=3)
        plan = BuildPlan(tmp_path / "cpu.int8.onnx", "rtx", ("sm75",), spec=spec)
        with pytest.raises(InputError, match=r"cpu.int8.onnx is INT8 for CPUs.* python export/to_trt.py --int8"):
            build_engine(plan, tmp_path, progress=False)

    def test_calibrates_by_itself(self, half_onnx, calib_images, tmp_path, capsys):
        pytest.importorskip("tensorrt_rtx")
        arguments = ["--int8", "--onnx", str(half_onnx), "--calib-images", str(calib_images), "--num-images", "16"]
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
        names = {"half": half_onnx, "int8": calibrated[0].path}
        words = [word.format(**names) for word in arguments]
        assert to_trt.main([*words, "-o", str(tmp_path)]) == 1
        assert re.search(message, capsys.readouterr().err)
