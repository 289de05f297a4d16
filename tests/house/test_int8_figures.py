"""The figures of docs/int8.md are those of the committed results."""

from __future__ import annotations

import re

from tests.support.figures import NAMES, TEXT, result, table, title

TARGETS = {"trt", "cpu"}


def test_int8_table():
    found, blood_cells = result("int8.json")["models"], result("int8_bccd.json")
    rows = {(cells[0], cells[1]): cells[2:] for cells in table("model, INT8")}
    expected = {}
    for name, model in found.items():
        for target in TARGETS & model.keys():
            row = model[target]
            aps = (row["measured"]["reference"]["AP"], row["measured"]["AP"])
            expected[name, target] = (row, aps)
    expected["blood cells", "trt"] = (blood_cells, (blood_cells["test_before"]["AP"], blood_cells["test"]["AP"]))
    assert len(rows) == len(expected)
    for (shown, target), cells in rows.items():
        model, size, *special = shown.split(", ")
        row, aps = expected[(special[0] if special else f"{NAMES[model]}-{size}"), target]
        counts = [f"{row['quantized']} of {row['convolutions']}", str(len(row["float_layers"]))]
        sizes = [f"{row[key] / 1e6:.2f}" for key in ("bytes_before", "bytes")]
        assert cells == [*counts, *(f"{ap:.2f}" for ap in aps), *sizes]


def test_what_int8_misses():
    """Whatever loses more than 0.3 AP, or has less than 80 % of its convolutions in INT8, is listed, and no other."""
    expected = []
    for name, model in result("int8.json")["models"].items():
        for target in TARGETS & model.keys():
            row = model[target]
            share, drop = row["quantized"] / row["convolutions"], row["measured"]["drop"]
            assert row["measured"]["images"] == 397
            assert drop < 1
            if drop > 0.3 or share < 0.8:
                expected.append([title(name), target, f"{drop:.2f}", f"{row['chosen_by']['drop']:.2f}", f"{share:.0%}"])
    assert sorted([*cells[:4], cells[4].replace(" ", "")] for cells in table("misses")) == sorted(expected)


def test_int8_times():
    claimed = re.search(r"INT8 takes (.+?) of the time", TEXT)[1]
    models = result("int8.json")["models"]
    assert claimed == ", ".join(
        f"{row['on this CPU']['int8_over_fp32']:.2f} ({title(name)})" for name, row in models.items()
    )


def test_int8_engine_table():
    found = result("int8.json")
    expected = {}
    for name, model in found["models"].items():
        for row in model["engines"]:
            expected[name, row["target"]] = (row, model["trt"])
    for row in found["gfl"]["rows"]:
        expected[row["model"], row["target"]] = (row, {"quantized": row.get("int8_convolutions"), **row})
    for name, target, counts, *cells in table("INT8 engine"):
        row, counted = expected.pop((name, target))
        assert counts == f"{counted['quantized']} of {counted['convolutions']}"
        if "int8_convolutions" in row:
            assert counts == f"{row['int8_convolutions']} of {row['convolutions']}"
            assert (row["rounding_kernels_to_int8"] == row["rounding_kernels"]) == (target != "sm75")
        sizes = [f"{row['engine_bytes'] / 1e6:.1f}", f"{row['peak_memory_bytes'] / 1e6:.0f}"]
        assert cells == [f"{row['build_seconds']:.1f}", *sizes]
    assert not expected


def decibels(model, treatment):
    """Of a row of the table of dead channels, as it stands there."""
    method = treatment.removeprefix("ranges by ")
    row = model["treatments"].get(treatment if method == treatment else "as calibrated")
    if row is None:
        return "was not measured"
    methods = ("entropy", "max", "percentile", "mse") if method == treatment else (method,)
    return f"{max(row[method] for method in methods):.1f}"


def test_dead_channels_table():
    models = result("dead_channels.json")["models"]
    columns = [models[name] for name in ("EfficientNet-Lite0", "nanodet-plus-m-416")]
    rows = table("treatment")
    for treatment, *cells in rows:
        assert cells == [decibels(model, treatment) for model in columns]
    shown = {treatment for treatment, *_ in rows}
    assert shown >= {treatment for model in columns for treatment in model["treatments"]}


def test_dead_channels_claims():
    found = result("dead_channels.json")
    claimed = re.findall(r"(\d+) of its\s+(\d+) channels", TEXT)
    lite = found["models"]["EfficientNet-Lite0"]
    assert claimed == [(str(lite["dead_channels"]), str(lite["channels"]))]
