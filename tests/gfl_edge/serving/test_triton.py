"""A model in Triton's repository: names, shapes and types as the model has them, read back by Protobuf."""

from __future__ import annotations

import re
from dataclasses import replace

import onnx
import pytest

from gfl_edge.cli.main import main
from gfl_edge.engine.sidecar import Sidecar
from gfl_edge.errors import ContractError, InputError, OutputError
from gfl_edge.ops.onnx_graph import open_session
from gfl_edge.serving import triton
from gfl_edge.serving.triton import spec_of_parameters, write_triton
from gfl_edge.spec import load_onnx, set_spec, spec_of
from tests.support.tiny_engine import write_engine
from tests.support.tiny_onnx import SPEC, fix_batch, tiny_onnx


def model_file(folder, nms="graph", **changes):
    model = tiny_onnx(nms, replace(SPEC, **changes))
    path = folder / f"{nms}.onnx"
    onnx.save(model, path)
    return path


def fake_engine(folder, flavor, max_batch=1):
    numbers = {"max_batch": max_batch, "build_seconds": 1.0, "convolutions": 1, "int8_convolutions": 0}
    digests = {"onnx_sha256": "0" * 64, "engine_sha256": "0" * 64}
    sidecar = Sidecar(flavor, "10.13.2.6", ("sm87",), spec=SPEC, **numbers, **digests)
    return write_engine(folder / "m.engine", b"a plan", sidecar)


def read(folder):
    """The configuration as Triton's own Protobuf reads it."""
    config = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason="the extra triton is not installed")
    from google.protobuf import text_format

    return text_format.Parse((folder / "config.pbtxt").read_text(), config.ModelConfig())


def ports(text, block):
    """Name -> (type, dims) of "input" or "output" in the text."""
    (inside,) = re.findall(rf"^{block} \[\n(.*?)^\]", text, re.DOTALL | re.MULTILINE)
    found = re.findall(r'name: "(\w+)" data_type: TYPE_(\w+) dims: \[ ([-\d, ]+) \]', inside)
    return {name: (kind, [int(side) for side in dims.split(", ")]) for name, kind, dims in found}


def test_the_folder(tmp_path):
    folder = write_triton(tmp_path / "repo", model_file(tmp_path), max_batch=4)
    assert folder == tmp_path / "repo" / "tiny-fp32"
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()) == [
        "1/model.onnx",
        "config.pbtxt",
        "labels.txt",
    ]
    assert (folder / "labels.txt").read_text() == "cat\ndog\n"
    assert not load_onnx(folder / "1" / "model.onnx").functions  # older ONNX Runtimes know none


@pytest.mark.parametrize(
    ("nms", "expected"),
    [
        (
            "graph",
            {
                "num_dets": ("INT32", [1]),
                "det_boxes": ("FP32", [10, 4]),
                "det_scores": ("FP32", [10]),
                "det_classes": ("INT32", [10]),
            },
        ),
        ("none", {"scores": ("FP32", [16, 2]), "boxes": ("FP32", [16, 4])}),
        ("raw", {"cls_logits": ("FP32", [16, 2]), "reg_logits": ("FP32", [16, 32])}),
    ],
)
def test_outputs_of_every_form(tmp_path, nms, expected):
    text = (write_triton(tmp_path, model_file(tmp_path, nms)) / "config.pbtxt").read_text()
    assert ports(text, "output") == expected
    assert ports(text, "input") == {"images": ("UINT8", [32, 32, 3])}


@pytest.mark.parametrize("nms", ["graph", "none", "raw"])
@pytest.mark.parametrize("fixed", [False, True])
def test_shapes_are_those_that_onnx_runtime_says(tmp_path, nms, fixed):
    """Triton compares them when it loads the model, those of outputs exactly."""
    path = tmp_path / "m.onnx"
    onnx.save(fix_batch(tiny_onnx(nms)) if fixed else tiny_onnx(nms), path)
    folder = write_triton(tmp_path / "repo", path)
    text = (folder / "config.pbtxt").read_text()
    session = open_session(onnx.load(folder / "1" / "model.onnx"))
    whole = [] if fixed else [-1]
    for block, values in (("input", session.get_inputs()), ("output", session.get_outputs())):
        found = {name: whole + dims for name, (_, dims) in ports(text, block).items()}
        assert found == {
            value.name: [side if isinstance(side, int) else -1 for side in value.shape] for value in values
        }


def test_a_model_for_one_image_at_a_time(tmp_path):
    """Triton's ONNX Runtime does not load one with a largest batch."""
    path = tmp_path / "m.onnx"
    onnx.save(fix_batch(tiny_onnx("graph")), path)
    text = (write_triton(tmp_path / "repo", path, max_batch=1) / "config.pbtxt").read_text()
    assert "max_batch_size: 0\n" in text
    assert "dynamic_batching" not in text
    assert ports(text, "input") == {"images": ("UINT8", [1, 32, 32, 3])}
    assert re.findall(r"batch_size: (\d+) inputs .* dims: (\[.*?\]) zero_data", text) == [("1", "[ 1, 32, 32, 3 ]")]
    with pytest.raises(InputError, match=r"takes 1 image at a time: its shapes are fixed\. Leave out --max-batch"):
        write_triton(tmp_path / "repo", path, max_batch=2)


def test_sigmas_are_an_output(tmp_path):
    text = (write_triton(tmp_path, model_file(tmp_path, edge_sigma=True)) / "config.pbtxt").read_text()
    assert ports(text, "output")["det_sigmas"] == ("FP32", [10, 4])


def test_a_dynamic_size(tmp_path):
    model = tiny_onnx("none")
    spec = replace(spec_of(model, ""), resize="fit", input_hw=(320, 320), short_long=(320, 640))
    set_spec(model, spec)
    for value, sides in ((model.graph.input[0], (1, 2)), *((value, (1,)) for value in model.graph.output)):
        for side in sides:
            value.type.tensor_type.shape.dim[side].dim_param = f"any{side}"
    onnx.save(model, tmp_path / "m.onnx")
    text = (write_triton(tmp_path / "repo", tmp_path / "m.onnx") / "config.pbtxt").read_text()
    assert ports(text, "input") == {"images": ("UINT8", [-1, -1, 3])}
    assert ports(text, "output") == {"scores": ("FP32", [-1, 2]), "boxes": ("FP32", [-1, 4])}
    assert "dims: [ 320, 320, 3 ] zero_data: true" in text


def test_protobuf_reads_it(tmp_path):
    names = ('a "b" \\ c', "чай", "tab;{}")
    model = tiny_onnx("graph")
    spec = replace(spec_of(model, ""), class_names=names[:2])
    set_spec(model, spec)
    onnx.save(model, tmp_path / "m.onnx")
    config = read(write_triton(tmp_path / "repo", tmp_path / "m.onnx", max_batch=4, instances=3, name="cats.v2"))
    assert (config.name, config.max_batch_size, config.backend) == ("cats.v2", 4, "onnxruntime")
    assert config.instance_group[0].count == 3
    assert config.dynamic_batching.max_queue_delay_microseconds > 0
    assert [warm.batch_size for warm in config.model_warmup] == [1, 4]
    assert list(config.model_warmup[0].inputs["images"].dims) == [32, 32, 3]
    assert spec_of_parameters(config.parameters, "m") == spec


def test_an_engine(tmp_path):
    engine = fake_engine(tmp_path, flavor="tensorrt", max_batch=4)
    folder = write_triton(tmp_path / "repo", engine)
    assert (folder / "1" / "model.plan").read_bytes() == engine.read_bytes()
    text = (folder / "config.pbtxt").read_text()
    assert 'backend: "tensorrt"' in text
    assert "max_batch_size: 4" in text
    assert "KIND_GPU" in text
    with pytest.raises(InputError, match=r"--max-batch 5: .* takes 4 at most.*--max-batch 5"):
        write_triton(tmp_path / "repo", engine, max_batch=5)


def test_an_engine_of_rtx_is_refused(tmp_path):
    with pytest.raises(InputError, match="whose engines Triton does not run"):
        write_triton(tmp_path / "repo", fake_engine(tmp_path, flavor="rtx"))


@pytest.mark.parametrize("name", ["", "..", "a/b", "a b", ".hidden", "a\n", "x" * 129])
def test_names_that_are_none(tmp_path, name):
    with pytest.raises(InputError, match="expected letters"):
        write_triton(tmp_path / "repo", model_file(tmp_path), name=name)
    assert not (tmp_path / "repo").exists()


def test_another_model_of_that_name_stays(tmp_path):
    path = model_file(tmp_path)
    folder = write_triton(tmp_path / "repo", path, name="m")
    before = (folder / "1" / "model.onnx").read_bytes()
    with pytest.raises(OutputError, match="differs from what would be written"):
        write_triton(tmp_path / "repo", model_file(tmp_path, "none"), name="m")
    assert (folder / "1" / "model.onnx").read_bytes() == before
    write_triton(tmp_path / "repo", path, name="m")  # the same again
    write_triton(tmp_path / "repo", model_file(tmp_path, "none"), name="other")


def test_text_is_quoted_for_protobuf():
    assert triton._quoted('a"b\\\n\tЯ') == r'"a\"b\\\012\011\320\257"'


def test_the_description_travels_as_json_too():
    by_http = {key: {"string_value": value} for key, value in SPEC.to_metadata().items()}
    assert spec_of_parameters(by_http, "m") == SPEC
    with pytest.raises(ContractError, match="m carries no gfl_edge metadata"):
        spec_of_parameters({}, "m")


def test_the_command(tmp_path, capsys):
    model = model_file(tmp_path)
    assert main(["triton", str(tmp_path / "repo"), "--model", str(model), "--instances", "2"]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{tmp_path / 'repo' / 'tiny-fp32'}\n"
    assert "tritonserver --model-repository=" in captured.err
    assert main(["triton", str(tmp_path / "repo"), "--model", str(tmp_path / "no.onnx")]) == 1
