"""Committed results: what they were measured on is what today's code would measure."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from benchmarks import fingerprints
from benchmarks.run import MEASUREMENTS, RESULTS
from gfl_edge.errors import InputError

# Measured before fingerprints were recorded, of something that changed since, or not yet, and to be measured
OLD = {
    "dead-channels",
    "faults",
    "int8-bccd",
}
# The detections of one are made up, the others count what tests run and notice
WITHOUT_NETWORK = {"coverage", "soak", "mutants"}
FRESH = [what for what in MEASUREMENTS if what not in OLD]
SLOW = tuple(f"graph of {family}" for family in fingerprints.GRAPHS)  # their export takes many seconds
# Of smaller networks, whose export shares its code with theirs
STRUCTURES = {
    "small-fp32-graph": "17837944ddb2f247",
    "small-fp32-none": "35709d9273f4b79d",
    "small-fp32-raw": "28a9e19c09482188",
    "small-fp16-graph": "cba40d29ec7f8356",
    "small-fp16-raw": "35c3306e5c360993",
    "shuffling-fp32-none": "073fbd95aaa36784",
}

pytestmark = pytest.mark.usefixtures("one_trace")


def recorded(what):
    result = json.loads((RESULTS / f"{MEASUREMENTS[what].name}.json").read_text())
    assert result["commit"].strip("+")
    return result["fingerprint"]


def stale_without_slow(what):
    return fingerprints.stale({name: it for name, it in recorded(what).items() if name not in SLOW})


@pytest.mark.parametrize("what", FRESH)
def test_a_result_records_its_subjects(what):
    subjects = set(MEASUREMENTS[what].subjects)
    assert set(recorded(what)) == subjects
    assert bool(subjects) == (what not in WITHOUT_NETWORK)


@pytest.mark.parametrize("what", FRESH)
def test_no_result_is_stale(what):
    gone = stale_without_slow(what)
    assert not gone, f"changed since the measurement: {', '.join(gone)}. Run: python benchmarks/run.py {what}"


def test_the_kernels_are_those_that_ran_on_a_gpu():
    result = json.loads((RESULTS / "gpu_h200.json").read_text())
    gone = fingerprints.stale(result["fingerprint"])
    assert not gone, "changed since they ran on a GPU. Where one is at hand: python benchmarks/gpu.py -o DIR"


@pytest.mark.slow
@pytest.mark.parametrize("subject", SLOW)
def test_no_result_is_stale_by_other_graphs(subject):
    now = fingerprints.take([subject])[subject]
    old = [what for what in FRESH if recorded(what).get(subject, now) != now]
    assert not old, f"{subject} changed since the measurement of {', '.join(old)}: run them with benchmarks/run.py"


@pytest.mark.parametrize("name", STRUCTURES)
def test_exports_are_what_they_were(name, small_onnx, shuffling_onnx):
    """The fast sibling of the slow test above."""
    kind, precision, nms = name.split("-")
    model = onnx.load(shuffling_onnx if kind == "shuffling" else small_onnx[precision, nms])
    assert fingerprints.structure(model) == STRUCTURES[name], (
        "exported graphs have changed: ask `pytest --run-slow tests/benchmarks/test_fingerprints.py` which results are "
        "to be measured again, and write here what this one is now"
    )


@pytest.mark.parametrize("what", sorted(OLD))
def test_what_is_called_old_is_old(what):
    path = RESULTS / f"{MEASUREMENTS[what].name}.json"
    if path.exists() and "fingerprint" in json.loads(path.read_text()):
        lacking = set(MEASUREMENTS[what].subjects) - set(recorded(what))  # it has rows now that were not measured
        assert lacking or stale_without_slow(what)


def test_every_subject_is_of_some_result():
    used = {subject for measurement in MEASUREMENTS.values() for subject in measurement.subjects}
    known = {name for name in fingerprints.subjects() if not name.startswith("settings")}
    assert known <= used <= set(fingerprints.subjects())


def test_every_result_is_of_some_measurement():
    names = {f"{measurement.name}.json" for measurement in MEASUREMENTS.values()}
    found = {str(path.relative_to(RESULTS)) for path in RESULTS.rglob("*.json")}
    # Measured apart from this project, by `make fuzz`, and by benchmarks/gpu.py where a GPU is
    assert found - names == {"reference_ap.json", "fuzz.json", "gpu_h200.json"}


def small_model(kernel=(3, 3), renamed="", scale=1.0, swapped=False):
    """A convolution, and two activations that do not need one another."""
    weights = helper.make_tensor(
        f"{renamed}w", TensorProto.FLOAT, (2, 3, *kernel), [scale] * (6 * kernel[0] * kernel[1])
    )
    shape = helper.make_tensor(f"{renamed}shape", TensorProto.INT64, (2,), (1, -1))
    activations = [
        helper.make_node("Relu", [f"{renamed}c"], [f"{renamed}r"]),
        helper.make_node("Sigmoid", [f"{renamed}c"], [f"{renamed}s"], doc_string=renamed),
    ]
    nodes = [
        helper.make_node("Conv", ["x", f"{renamed}w"], [f"{renamed}c"], name=f"{renamed}conv", pads=[1, 1, 1, 1]),
        *(reversed(activations) if swapped else activations),
        helper.make_node("Add", [f"{renamed}r", f"{renamed}s"], [f"{renamed}a"]),
        helper.make_node("Reshape", [f"{renamed}a", f"{renamed}shape"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 8, 8))
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    return helper.make_model(helper.make_graph(nodes, "g", [x], [y], [weights, shape]))


class TestStructure:
    def test_is_no_matter_of_names_order_and_weights(self):
        models = [small_model(), small_model(renamed="a_"), small_model(scale=2.0), small_model(swapped=True)]
        assert len({fingerprints.structure(model) for model in models}) == 1

    def test_changes_with_a_kernel(self):
        assert fingerprints.structure(small_model((5, 5))) != fingerprints.structure(small_model())

    @pytest.mark.parametrize("change", ["attribute", "operator", "connection", "size", "opset", "input"])
    def test_changes_with(self, change):
        model = small_model()
        before = fingerprints.structure(copy.deepcopy(model))
        conv, _, _, add, _ = model.graph.node
        if change == "attribute":
            conv.attribute[0].ints[0] = 2
        elif change == "operator":
            add.op_type = "Sub"
        elif change == "connection":
            add.input[1] = add.input[0]
        elif change == "size":
            model.graph.initializer[1].int64_data[0] = 2
        elif change == "opset":
            model.opset_import[0].version -= 1
        else:
            model.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE
        assert fingerprints.structure(model) != before

    def test_changes_with_a_function_and_a_branch(self, small_onnx):
        model = onnx.load(small_onnx["fp32", "graph"])
        before = fingerprints.structure(copy.deepcopy(model))
        node = next(node for function in model.functions for node in function.node if node.op_type != "Constant")
        node.op_type = "Other"
        assert fingerprints.structure(model) != before


def test_comments_and_layout_of_kernels_do_not_count():
    assert fingerprints._code("int  a; // one\n/* two\n */ int b;") == fingerprints._code("int a;\n int b;")


def test_losses_of_another_processor_are_the_same():
    taken = fingerprints.take(["losses of gfl"])
    close = {name: value * (1 + 1e-5) for name, value in taken["losses of gfl"].items()}
    far = {**close, "dfl": close["dfl"] * 1.01}
    assert fingerprints.stale({"losses of gfl": close}) == []
    assert fingerprints.stale({"losses of gfl": far}) == ["losses of gfl"]
    assert fingerprints.stale({"losses of gfl": {"qfl": close["qfl"]}}) == ["losses of gfl"]


def test_a_subject_that_is_gone_is_stale():
    assert fingerprints.stale({"graph of yolo": "00"}) == ["graph of yolo"]


def test_without_its_data_nothing_is_recorded(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("GFL_EDGE_DATA", str(tmp_path))
    with pytest.raises(InputError, match=r"weights of nanodet-m-320 in .*"):
        fingerprints.take(["weights of nanodet-m-320"])
