"""Every number in the README's tables is one of a committed result."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
README = (CHECKOUT / "README.md").read_text()
NAMES = {"NanoDet-m": "nanodet-m", "NanoDet-Plus-m": "nanodet-plus-m"}


def result(name):
    return json.loads((CHECKOUT / "benchmarks" / "results" / name).read_text())


def table(first_header):
    """Rows of cells of the table whose first header that is."""
    lines = README.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {first_header} |"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    assert rows
    return rows


def test_ap_table():
    measured, reference = result("ap_mix397.json")["models"], result("reference_ap.json")["models"]
    columns = (
        "fp32, NMS in the graph, openvino",
        "fp32, --nms none, NMS on the host, openvino",
        "fp16, NMS in the graph, onnxruntime",
    )
    rows = table("model | input")
    assert len(rows) == len(measured) == 4
    for model, size, *cells in rows:
        name = f"{NAMES[model]}-{size}"
        expected = [f"{measured[name][column]['AP']:.2f}" for column in columns]
        expected += [f"{reference[name]['mix397']:.2f}", f"{reference[name]['published']:.1f}"]
        assert cells == expected


def test_measured_ap_is_within_a_tenth_of_the_reference():
    measured, reference = result("ap_mix397.json")["models"], result("reference_ap.json")["models"]
    for name, variants in measured.items():
        for label, numbers in variants.items():
            assert numbers["images"] == 397
            assert numbers["AP"] == pytest.approx(reference[name]["mix397"], abs=0.10), (name, label)


def test_engine_table():
    rows = {(r["model"], r["precision"], r["target"]): r for r in result("engines.json")["rows"]}
    for model, precision, target, seconds, size, memory in table("model | precision"):
        row = rows.pop((model, precision.lower(), target))
        found = (row["build_seconds"], row["engine_bytes"] / 1e6, row["peak_memory_bytes"] / 1e6)
        assert (seconds, size, memory) == (f"{found[0]:.1f}", f"{found[1]:.1f}", f"{found[2]:.0f}")
    assert not rows


def test_gfl_engine_table():
    found = {(r["model"], r["precision"]): r for r in result("gfl_engines.json")["rows"]}
    for model, *cells in table("model, 800 x 1344"):
        full, half = found.pop((model, "fp32")), found.pop((model, "fp16"))
        expected = [f"{half['export_and_parity_seconds']:.0f}"]
        for row in (full, half):
            expected += [f"{row['build_seconds']:.1f}", f"{row['engine_bytes'] / 1e6:.0f}"]
        assert cells == [*expected, f"{half['peak_memory_bytes'] / 1e6:.0f}"]
    assert not found


def test_training_claims():
    bccd = result("bccd.json")
    claimed = re.search(
        r"([\d.]+) minutes on 2 CPU cores.*?AP50 ([\d.]+) and AP ([\d.]+) on the (\d+) images", README, re.S
    )
    test = bccd["test"]
    minutes = f"{bccd['training_minutes']:.1f}"
    assert claimed.groups() == (minutes, f"{test['AP50']:.1f}", f"{test['AP']:.1f}", str(test["images"]))
    assert bccd["training_minutes"] <= 30
    assert test["AP50"] >= 85
    for name, value in bccd["test_of_the_onnx_file"].items():
        assert name == "on" or value == pytest.approx(test[name], abs=0.05)


@pytest.mark.parametrize("boxes", [100, 500])
def test_assigner_claims(boxes):
    row = next(row for row in result("assigner.json")["by_boxes"] if row["boxes"] == boxes)
    (claimed,) = re.findall(rf"with {boxes} objects(?: take)? ([\d.]+) ms", README)
    (faster,) = re.findall(rf"with {boxes} objects.*?([\d.]+)\s+times less", README, re.S)[:1]
    assert claimed == f"{row['assignment_and_loss_ms']:.1f}"
    assert faster == f"{row['times_faster']}"


def test_nms_claims():
    models = result("nms.json")["models"]
    assert all(model["images_whose_kept_set_differs_from_greedy"] == 0 for model in models.values())
    most = max(int(rounds) for model in models.values() for rounds in model["rounds_needed"])
    (claimed,) = re.findall(r"(\d+) was the most that those images needed", README)
    assert int(claimed) == most < result("nms.json")["rounds_in_the_graph"]


def test_every_result_names_device_versions_and_command():
    for path in (CHECKOUT / "benchmarks" / "results").glob("*.json"):
        if path.name != "reference_ap.json":  # other people's numbers, with their source
            assert {"device", "versions", "command"} <= json.loads(path.read_text()).keys(), path.name


def test_links_of_the_readme_exist():
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert target.startswith("https://") or (CHECKOUT / target).exists(), target
