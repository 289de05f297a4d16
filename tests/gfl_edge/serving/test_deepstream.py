"""The folder for DeepStream: what nvinfer reads there, for every kind of model."""

from __future__ import annotations

import configparser
from dataclasses import replace

import onnx
import pytest

from gfl_edge.cli.main import main
from gfl_edge.errors import InputError, ModelFileError, OutputError
from gfl_edge.filters import DetectionFilter
from gfl_edge.serving import deepstream
from gfl_edge.serving.deepstream import SOURCES, config, readme, write_deepstream
from gfl_edge.spec import set_spec, spec_of
from tests.conftest import CHECKOUT
from tests.support.tiny_onnx import SPEC, fix_batch, tiny_onnx

# Of what nvinfer knows in [property], by gstnvinfer_property_parser.h of DeepStream 9.1; other keys it only reports
KEYS = set(
    """
batch-size cluster-mode crop-objects-to-roi-boundary custom-lib-path gie-unique-id gpu-id infer-dims interval
labelfile-path maintain-aspect-ratio model-color-format model-engine-file net-scale-factor network-mode network-type
num-detected-classes onnx-file output-blob-names parse-bbox-func-name process-mode scaling-filter symmetric-padding
""".split()  # noqa: SIM905
)


def written(folder, nms="graph", **changes):
    """A tiny model's file; ``changes`` are of its description."""
    model = tiny_onnx(nms)
    set_spec(model, replace(spec_of(model, ""), **changes))
    folder.mkdir(exist_ok=True)
    path = folder / f"{nms}.onnx"
    onnx.save(model, path)
    return path


def read(text):
    """As GLib reads key files, which are INI files whose names are case-sensitive and whose ; are values."""
    parser = configparser.ConfigParser(delimiters="=", comment_prefixes="#", interpolation=None, strict=True)
    parser.optionxform = str
    parser.read_string(text)
    return {section: dict(parser[section]) for section in parser.sections()}


def test_the_folder_holds_what_the_configuration_names(tmp_path):
    result = write_deepstream(tmp_path / "ds", written(tmp_path), batch_size=4)
    settings = read(result.config.read_text())["property"]
    assert (tmp_path / "ds" / settings["onnx-file"]).is_file()
    assert (tmp_path / "ds" / settings["labelfile-path"]).read_text() == "cat\ndog\n"
    assert settings["batch-size"] == "4"
    assert settings["model-engine-file"] in (tmp_path / "ds" / "README.txt").read_text()
    assert settings["custom-lib-path"] in (tmp_path / "ds" / "README.txt").read_text()
    assert set(settings) <= KEYS
    for name in SOURCES:
        source = CHECKOUT / "plugins" / "deepstream" / name
        assert (tmp_path / "ds" / "parser" / name).read_bytes() == source.read_bytes()
    assert settings["parse-bbox-func-name"] in (tmp_path / "ds" / "parser" / "gfl_deepstream.cpp").read_text()


def test_nms_in_the_graph():
    settings = read(config(SPEC, 2, DetectionFilter(0.4)))
    expected = {
        "net-scale-factor": "1.0",
        "model-color-format": "1",
        "network-mode": "0",
        "infer-dims": "3;32;32",
        "num-detected-classes": "2",
        "cluster-mode": "4",
        "maintain-aspect-ratio": "0",
        "symmetric-padding": "0",
        "crop-objects-to-roi-boundary": "1",
        "output-blob-names": "num_dets;det_boxes;det_scores;det_classes",
    }
    assert expected.items() <= settings["property"].items()
    assert "offsets" not in settings["property"]
    assert settings["class-attrs-all"] == {"pre-cluster-threshold": "0.4", "topk": "10"}


def test_nms_by_nvinfer():
    settings = read(config(replace(SPEC, nms="none", iou_threshold=0.55, edge_sigma=True), 1, DetectionFilter(0.25)))
    assert settings["property"]["cluster-mode"] == "2"
    assert settings["property"]["output-blob-names"] == "boxes;scores"
    assert settings["class-attrs-all"]["nms-iou-threshold"] == "0.55"


@pytest.mark.parametrize(
    ("changes", "mode"),
    [({"precision": "fp16"}, "2"), ({"precision": "fp16", "quantized_layers": 9}, "1"), ({"precision": "bf16"}, "0")],
)
def test_what_nvinfer_would_build_otherwise_it_is_not_to_build(changes, mode):
    spec = replace(SPEC, **changes)
    settings = read(config(spec, 1, DetectionFilter(0.3)))["property"]
    assert settings["network-mode"] == mode
    assert "onnx-file" not in settings
    assert "--stronglyTyped --minShapes=images:1x3x32x32 --optShapes=images:8x3x32x32" in readme(spec, 8)


@pytest.mark.parametrize(
    ("rule", "flags"), [("stretch", "00"), ("stretch-cubic", "00"), ("letterbox", "11"), ("fit", "10")]
)
def test_the_resize_rule(tmp_path, rule, flags):
    result = write_deepstream(tmp_path / "ds", written(tmp_path, resize=rule))
    settings = read(result.config.read_text())["property"]
    assert settings["maintain-aspect-ratio"] + settings["symmetric-padding"] == flags
    assert ("black instead" in result.remark) == (rule == "fit")
    assert result.remark in (tmp_path / "ds" / "README.txt").read_text()


def test_the_score_is_the_recommended_one(tmp_path):
    result = write_deepstream(tmp_path / "ds", written(tmp_path, recommended_score=0.41))
    assert read(result.config.read_text())["class-attrs-all"]["pre-cluster-threshold"] == "0.41"


def test_scores_of_classes_are_those_that_the_model_recommends(tmp_path):
    onnx_file = written(tmp_path, class_scores=(0.2, 0.35), recommended_score=0.35)
    settings = read(write_deepstream(tmp_path / "ds", onnx_file).config.read_text())
    assert settings["class-attrs-all"]["pre-cluster-threshold"] == "0.35"
    assert settings["class-attrs-0"] == {"pre-cluster-threshold": "0.2", "topk": "10"}
    assert "class-attrs-1" not in settings, "it has the score of all"
    assert "filter-out-class-ids" not in settings["property"]
    onnx_file = written(tmp_path, "none", class_scores=(0.2, 0.35))
    words = [
        "deepstream",
        str(tmp_path / "own"),
        "--model",
        str(onnx_file),
        "--classes",
        "dog",
        "--score",
        "0.5,dog=0.6",
    ]
    assert main(words) == 0
    settings = read((tmp_path / "own" / "config_infer.txt").read_text())
    assert settings["property"]["filter-out-class-ids"] == "0"
    assert settings["class-attrs-all"]["pre-cluster-threshold"] == "0.5"
    assert settings["class-attrs-1"] == {**settings["class-attrs-all"], "pre-cluster-threshold": "0.6"}
    assert "nms-iou-threshold" in settings["class-attrs-1"]


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        (DetectionFilter(classes=("owl",)), "the model has no class 'owl'"),
        (DetectionFilter(min_size=(9, 9)), "nvinfer filters by class and score"),
    ],
)
def test_filters_that_nvinfer_cannot_have(tmp_path, keep, message):
    with pytest.raises(InputError, match=message):
        write_deepstream(tmp_path / "ds", written(tmp_path), keep=keep)
    assert not (tmp_path / "ds").exists()


def test_labels_of_nvinfer_are_parted_by_semicolons(tmp_path):
    write_deepstream(tmp_path / "ds", written(tmp_path, class_names=("tv; monitor", "Tür")))
    assert (tmp_path / "ds" / "labels.txt").read_text(encoding="utf-8") == "tv, monitor\nTür\n"


def test_a_model_for_one_image_at_a_time(tmp_path):
    """trtexec takes no shapes for an input that has none to choose."""
    path = tmp_path / "m.onnx"
    onnx.save(fix_batch(tiny_onnx("graph")), path)
    with pytest.raises(InputError, match=r"takes 1 image at a time: its shapes are fixed\. Leave out --batch"):
        write_deepstream(tmp_path / "ds", path, batch_size=2)
    write_deepstream(tmp_path / "ds", path)
    assert "Shapes=" not in (tmp_path / "ds" / "README.txt").read_text()
    (made,) = (tmp_path / "ds").glob("*.onnx")
    images = onnx.load(made).graph.input[0].type.tensor_type
    assert [dim.dim_value for dim in images.shape.dim] == [1, 3, 32, 32]


def test_raw_maps_are_refused(tmp_path):
    with pytest.raises(InputError, match="--nms raw, whose outputs nvinfer cannot be given"):
        write_deepstream(tmp_path / "ds", written(tmp_path, "raw"))


def test_engines_and_missing_files_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"Name the engine's \.onnx file"):
        write_deepstream(tmp_path / "ds", tmp_path / "m.engine")
    with pytest.raises(ModelFileError, match="no such file"):
        write_deepstream(tmp_path / "ds", tmp_path / "m.onnx")
    assert not (tmp_path / "ds").exists()


def test_what_is_there_is_not_overwritten(tmp_path):
    model = written(tmp_path)
    config_file = write_deepstream(tmp_path / "ds", model).config
    (tmp_path / "ds" / "my.txt").write_text("mine")
    write_deepstream(tmp_path / "ds", model)  # the same once more
    config_file.write_text(config_file.read_text().replace("interval=0", "interval=2"))
    with pytest.raises(OutputError, match=r"config_infer\.txt is there and differs"):
        write_deepstream(tmp_path / "ds", model)
    assert "interval=2" in config_file.read_text()
    assert (tmp_path / "ds" / "my.txt").read_text() == "mine"


def test_a_run_that_was_stopped_is_completed(tmp_path):
    model = written(tmp_path)
    whole = write_deepstream(tmp_path / "whole", model).config.parent
    half = tmp_path / "half"
    half.mkdir()
    (half / "labels.txt").write_bytes((whole / "labels.txt").read_bytes())
    write_deepstream(half, model)
    names = {path.relative_to(whole) for path in whole.rglob("*")}
    assert names == {path.relative_to(half) for path in half.rglob("*")}


@pytest.mark.parametrize("where", ["file", "file/below"])
def test_a_place_that_is_no_folder_is_an_error(tmp_path, where):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError):
        write_deepstream(tmp_path / where, written(tmp_path))


def test_a_missing_source_says_so(monkeypatch):
    monkeypatch.setattr(deepstream, "__file__", "/nowhere/gfl_edge/serving/deepstream.py")
    with pytest.raises(Exception, match="Install gfl-edge again"):
        deepstream.parser_source("gfl_deepstream.h")


def test_the_command(tmp_path, capsys):
    model = written(tmp_path)
    assert main(["deepstream", str(tmp_path / "ds"), "--model", str(model), "--batch", "2", "--score", "0.5"]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{tmp_path / 'ds' / 'config_infer.txt'}\n"
    assert "README.txt" in captured.err
    assert main(["deepstream", str(tmp_path / "ds"), "--model", str(model), "--size", "64", "64"]) == 1
    assert "takes 32 x 32 only" in capsys.readouterr().err
