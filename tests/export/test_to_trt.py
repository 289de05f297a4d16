"""The command export/to_trt.py and the function that it calls, from a checkpoint or an ONNX file to an engine."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
import torch

from export import to_trt
from export.arguments import ExportOptions
from export.engine import EngineRequest, build
from gfl_edge.engine.sidecar import Sidecar
from gfl_edge.errors import InputError, PrecisionError
from gfl_edge.spec import read_spec
from train.models.nanodet import NanoDet, NanoDetConfig

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed: pip install 'gfl-edge[rtx]'")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch, no_gpu):
    monkeypatch.chdir(tmp_path)


OWN = "nanodet-repvgg-96x128"


@pytest.fixture
def own(elsewhere):
    """The checkpoint of a small network, always the same, in the current folder."""
    torch.manual_seed(0)
    layout = {"stage_channels": (8, 16, 16), "stage_blocks": (1,) * 4, "neck_channels": 32}
    network = NanoDet(NanoDetConfig("nanodet-repvgg", num_classes=3, reg_max=10, **layout))
    torch.save({"state_dict": network.state_dict()}, "own.pth")
    return Path("own.pth")


class TestFunction:
    def test_from_a_checkpoint(self, own, capsys):
        options = ExportOptions(input_hw=(96, 128), nms="none")
        result = build(EngineRequest(own, "fp16", targets=("sm86",), export=options), progress=False)
        assert result.spec.name == OWN
        assert result.engine == Path(f"artifacts/{result.spec.name}-fp16-nonms-rtx-sm86.engine")
        assert result.onnx == result.float_onnx == Path(f"artifacts/{result.spec.name}-fp16-nonms.onnx")
        assert result.spec == read_spec(result.onnx)
        assert result.sidecar == Sidecar.read(result.engine)
        assert result.parity is not None
        assert result.parity.passed
        assert result.calibration is None
        assert {path.name for path in Path("artifacts").iterdir()} == {
            result.onnx.name, result.engine.name, f"{result.engine.name}.json"
        }  # fmt: skip
        assert capsys.readouterr().out == ""

    def test_the_file_is_read_once(self, small_onnx, monkeypatch):
        import onnx

        source = small_onnx["fp16", "graph"]
        read, whole, parsed = [], onnx.load, onnx.load_model_from_string
        monkeypatch.setattr(onnx, "load", lambda path: read.append("file") or whole(path))
        monkeypatch.setattr(onnx, "load_model_from_string", lambda content: read.append("content") or parsed(content))
        result = build(EngineRequest(source, "fp16", Path("out"), max_batch=2), progress=False)
        assert read == ["content", "content"]  # to know what it is, and to change it for the engine
        assert (result.onnx, result.sidecar.max_batch, result.parity) == (source, 2, None)

    def test_an_onnx_file_is_taken_in_its_own_precision(self, small_onnx):
        result = build(EngineRequest(small_onnx["fp16", "none"]), progress=False)
        assert result.spec.precision == "fp16"

    def test_int8_that_serves_no_gpu_is_said_before_it_is_calibrated(self, small_onnx, tmp_path, caplog):
        (tmp_path / "images").mkdir()
        request = EngineRequest(small_onnx["fp16", "none"], "int8", targets=("sm75",), calib_images=tmp_path / "images")
        with pytest.raises(InputError, match="holds 0 readable images"):
            build(request, progress=False)
        assert "An FP16 engine serves better there" in caplog.text

    @pytest.mark.parametrize(
        ("changes", "error", "message"),
        [
            ({"precision": "fp16"}, PrecisionError, "is fp32: precision is part of an ONNX file"),
            ({"precision": "int8"}, InputError, "is not INT8 yet.*--calib-images"),
            ({"precision": "int8", "calib_images": Path("none")}, InputError, "none: no such folder of calibration"),
            ({"targets": ("sm77",)}, InputError, "unknown target sm77"),
            ({"max_batch": 0}, InputError, "--max-batch 0: expected a whole number, 1"),
            ({"source": None, "export": ExportOptions(model="nanodet-m-320")}, InputError, "give one with --weights"),
        ],
    )
    def test_what_cannot_work_is_refused(self, small_onnx, changes, error, message, tmp_path):
        values = {"source": small_onnx["fp32", "graph"], **changes}
        with pytest.raises(error, match=message):
            build(EngineRequest(**values))
        assert not list(tmp_path.iterdir())


class TestCommand:
    def test_from_weights_to_engine(self, own, capsys, tmp_path):
        self.check(OWN, ["--weights", str(own), "--input-size", "96", "128"], capsys, tmp_path)

    @pytest.mark.slow
    def test_from_published_weights_to_engine(self, checkpoint, capsys, tmp_path):
        self.check("nanodet-m-320", ["--weights", str(checkpoint("nanodet-m-320"))], capsys, tmp_path)

    def check(self, name, weights, capsys, tmp_path):
        assert to_trt.main([*weights, "--fp16", "--target", "sm86", "-o", "out"]) == 0
        captured = capsys.readouterr()
        engine = f"{name}-fp16-rtx-sm86.engine"
        assert captured.out.strip() == f"out/{engine}"
        assert f"gfl-edge camera --model out/{engine}" in captured.err
        names = {path.name for path in (tmp_path / "out").iterdir()}
        assert names == {f"{name}-fp16.onnx", engine, f"{engine}.json"}
        again = Sidecar.read(tmp_path / "out" / engine).rebuild_command
        assert names & set(again.split()) == {f"{name}-fp16.onnx"}
        assert json.loads((tmp_path / "out" / f"{engine}.json").read_text())["spec"]["precision"] == "fp16"

    def test_nothing_named_takes_the_newest_of_that_precision(self, small_onnx, capsys, tmp_path):
        (tmp_path / "artifacts").mkdir()
        for age, key in enumerate((("fp32", "graph"), ("fp16", "graph"), ("fp16", "none"), ("fp32", "raw"))):
            copy = tmp_path / "artifacts" / f"{'-'.join(key)}.onnx"
            copy.write_bytes(small_onnx[key].read_bytes())
            os.utime(copy, (1000 - age, 1000 - age))
        (tmp_path / "artifacts" / "foreign.onnx").write_bytes(b"something else")
        assert to_trt.main(["--fp16"]) == 0
        captured = capsys.readouterr()
        assert "taking artifacts/fp16-graph.onnx, the newest under artifacts/" in captured.err
        assert captured.out.strip() == "artifacts/nanodet-repvgg-64x96-fp16-rtx-sm75.engine"

    @pytest.mark.parametrize("words", [[], ["--fp16"]])
    def test_nothing_named_and_nothing_there_takes_the_bundled_model(self, words, capsys):
        assert to_trt.main(words) == 0
        captured = capsys.readouterr()
        assert "none under artifacts/: taking coco-448" in captured.err
        assert captured.out.strip() == "artifacts/coco-448-fp16-rtx-sm75.engine"

    def test_the_bundled_model_is_no_other_precision(self, capsys, tmp_path):
        assert to_trt.main(["--bf16", "--target", "sm86"]) == 1
        assert "coco-448.onnx is fp16" in capsys.readouterr().err
        assert not list(tmp_path.iterdir())

    def test_no_weights_anywhere_says_which_file_to_put_where(self, capsys, monkeypatch, tmp_path):
        monkeypatch.setenv("GFL_EDGE_DATA", str(tmp_path))
        monkeypatch.setenv("GFL_EDGE_CACHE", str(tmp_path / "cache"))
        assert to_trt.main(["--fp16", "--weights", "nanodet-plus-m-416"]) == 1
        error = capsys.readouterr().err
        assert "/nanodet-plus-m_416_checkpoint.ckpt with a browser" in error
        assert f"as nanodet-plus-m_416_checkpoint.ckpt into {tmp_path}/cache/weights" in error

    def test_a_plugin_for_rtx_is_refused_before_the_export(self, checkpoint, capsys, tmp_path):
        words = ["--weights", str(checkpoint("nanodet-m-320")), "--nms", "plugin", "--flavor", "rtx"]
        assert to_trt.main(words) == 1
        captured = capsys.readouterr()
        assert "TensorRT-RTX takes no plugins" in captured.err
        assert "exporting" not in captured.err
        assert not list(tmp_path.iterdir())

    def test_half_of_a_single_precision_file_is_refused(self, small_onnx, capsys):
        assert to_trt.main(["--onnx", str(small_onnx["fp32", "graph"]), "--fp16"]) == 1
        assert "is fp32: precision is part of an ONNX file and is never changed silently" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["--target", "sm77"], "unknown target sm77"),
            (["--onnx", "a.onnx", "--weights", "b.pth"], "give one of them"),
            (["--onnx", "none.onnx"], "none.onnx: no such file"),
            (["--weights", "none.pth"], "none.pth: no such checkpoint"),
            (["--weights", "nanodet-plus-m"], r"did you mean nanodet-plus-m-\d{3}\?"),
            (["--flavor", "tensorrt"], "tensorrt cannot be imported|full TensorRT builds only"),
        ],
    )
    def test_wrong_options(self, words, message, capsys):
        assert to_trt.main(words) == 1
        assert re.search(message, capsys.readouterr().err)

    def test_usage_errors_exit_with_2(self):
        with pytest.raises(SystemExit) as caught:
            to_trt.main(["--flavor", "trt"])
        assert caught.value.code == 2
