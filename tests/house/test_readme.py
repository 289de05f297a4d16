"""Every number in README.md and docs/ is one of a committed result."""

from __future__ import annotations

import json
import re

import pytest

from tests.support.figures import CHECKOUT, DOCUMENTS, NAMES, TEXT, result, table, title

OTHER_DOCUMENTS = (
    *(CHECKOUT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md", "THIRD_PARTY_NOTICES.md")),
    *sorted((CHECKOUT / "plugins").rglob("*.md")),
)
DFL_PAIRS = (("ATSS + DFL", "ATSS"), ("GFL (both)", "ATSS + QFL"))  # with and without
QFL_PAIRS = (("ATSS + QFL", "ATSS"), ("GFL (both)", "ATSS + DFL"))


FP32_IN_THE_GRAPH = "fp32, NMS in the graph, openvino"
FP32_ON_THE_HOST = "fp32, --nms none, NMS on the host, openvino"
FP16 = "fp16, NMS in the graph, onnxruntime"


def test_front_table():
    measured, reference = result("ap_mix397.json")["models"], result("reference_ap.json")["models"]
    rows = table("model | input")
    assert len(rows) == len(measured)
    for model, size, *cells in rows:
        name = f"{NAMES[model]}-{size}"
        int8_ap, int8_ms = reported(f"{name}-int8-fp32")
        fp32_ap, fp32_ms = reported(f"{name}-fp32")
        assert fp32_ap == pytest.approx(measured[name][FP32_IN_THE_GRAPH]["AP"], abs=0.005)
        expected = [f"{measured[name][column]['AP']:.2f}" for column in (FP32_IN_THE_GRAPH, FP16)]
        expected += [f"{int8_ap:.2f}", f"{reference[name]['mix397']:.2f}", f"{reference[name]['published']:.1f}"]
        assert cells == [*expected, f"{fp32_ms:.1f}", f"{int8_ms:.1f}"]


def reported(model):
    """AP of a model of the committed report, and its median latency of single frames in ms."""
    report = result("report/report.json")
    (found,) = [entry for entry in report["models"] if entry["id"] == model]
    (run,) = [run for run in report["runs"] if (run["model"], run["protocol"]) == (model, "stream")]
    assert found["accuracy"]["images"] == 397
    return found["accuracy"]["metrics"]["AP"], run["latency"]["p50_ms"]


def test_the_chart_is_that_of_the_report():
    svg = (CHECKOUT / "benchmarks" / "results" / "report" / "ap-latency.svg").read_text()
    for model, size, *_ in table("model | input"):
        assert f"{NAMES[model]}-{size}" in svg


def test_ap_by_nms_table():
    measured = result("ap_mix397.json")["models"]
    rows = table("AP by NMS")
    assert [name for name, *_ in rows] == [title(name) for name in measured]
    for (_, *cells), numbers in zip(rows, measured.values(), strict=True):
        assert cells == [f"{numbers[column]['AP']:.2f}" for column in (FP32_IN_THE_GRAPH, FP32_ON_THE_HOST)]


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


def test_engine_options():
    rows = result("engine_options.json")["rows"]
    shown = [row for row in rows if row["option"] in ("groups as exported", "wider groups")]
    for row, (groups, target, *cells) in zip(shown, table("groups"), strict=True):
        assert (groups in row["option"], target) == (True, row["target"])
        sizes = [f"{row[key] / 1e6:.1f}" for key in ("engine_bytes", "compressed_bytes")]
        assert cells == [str(row["kernels"]), *sizes]
    text = " ".join(TEXT.split())
    unchanged, failed = text.partition("No option of the builder does it.")[2].partition("With `REFIT`")[::2]
    for row in rows[len(shown) :]:
        name = row["option"].removeprefix("flag ").split()[0]
        assert f"`{name}`" in (f"`REFIT`{failed}" if row["engine_bytes"] is None else unchanged)
        assert row["engine_bytes"] in (None, pytest.approx(rows[0]["engine_bytes"], rel=1e-3))


def test_gfl_engine_table():
    found = {(r["model"], r["precision"]): r for r in result("gfl_engines.json")["rows"]}
    for model, *cells in table("model, 800 x 1344"):
        full, half = found.pop((model, "fp32")), found.pop((model, "fp16"))
        expected = [f"{half['export_and_parity_seconds']:.0f}"]
        for row in (full, half):
            expected += [f"{row['build_seconds']:.1f}", f"{row['engine_bytes'] / 1e6:.0f}"]
        assert cells == [*expected, f"{half['peak_memory_bytes'] / 1e6:.0f}"]
    assert not found


def test_gpu_tables():
    stages = {name: stage["result"] for name, stage in result("gpu_h200.json")["stages"].items()}
    networks = [network_cells(row) for row in stages["networks"]["rows"]]
    assert table("network, on the H200") == networks
    kernels = [row for row in stages["times"]["rows"] if row["dtype"] == "float16" and row["others_us"]]
    assert table("input of the kernels") == [kernel_cells(row) for row in kernels]
    accuracy, text = stages["accuracy"], " ".join(TEXT.split())
    aps = (f"{accuracy[precision]['AP']:.2f}" for precision in ("fp32", "fp16"))
    images = accuracy["fp16"]["images"]
    assert "has AP {} in FP32 and {} in FP16 on {} of the 397 images".format(*aps, images) in text
    assert f"takes {stages['times']['resize_us']['1080x1920']:.1f} µs" in text
    roads = stages["results"].values()
    assert not any(road["different"] for road in roads)
    assert f"{sum(road['same'] for road in roads)} calls by {len(roads)} roads" in text
    resized = [rule for road in roads for rule in road["resize"].values()]
    assert resized
    assert not any(rule["most"] for rule in resized)
    sanitizer = stages["sanitizer"].values()
    assert all(tool["clean"] and tool.get("planted_found", True) for tool in sanitizer)


def network_cells(row):
    paper, stages = row["paper_fps_rtx_2080_ti"], row["gfocal"]["stages_p50_ms"]
    return [
        row["model"],
        "{} x {}".format(*row["input_hw"]),
        (row["deform_operator"] or "none").replace("grid_sample", "GridSample"),
        f"{row['gfocal']['fps']:.1f}",
        f"{stages['network']:.2f}",
        f"{1000 * stages['nms']:.0f}",
        f"{row['stream']['fps']:.1f}",
        "-" if paper is None else f"{paper:.1f}",
    ]


def kernel_cells(row):
    others = sum(us for name, us in row["others_us"].items() if "numpy" not in name)
    times = [row["microseconds"], *(row["kernels_us"][name] for name in ("filter", "rank", "suppress"))]
    named = [row["input"], f"{row['anchors']} x {row['classes']}", str(row["batch"]), str(row["score_threshold"])]
    return [*named, *(f"{us:.1f}" for us in times), f"{others:.0f}"]


def test_training_claims():
    bccd = result("bccd.json")
    claimed = re.search(
        r"([\d.]+) minutes on 2 CPU cores.*?AP50 ([\d.]+) and AP ([\d.]+) on the (\d+)\s+images", TEXT, re.S
    )
    test = bccd["test"]
    minutes = f"{bccd['training_minutes']:.1f}"
    assert claimed.groups() == (minutes, f"{test['AP50']:.1f}", f"{test['AP']:.1f}", str(test["images"]))
    assert bccd["training_minutes"] <= 30
    assert test["AP50"] >= 85
    for name, value in bccd["test_of_the_onnx_file"].items():
        assert name == "on" or value == pytest.approx(test[name], abs=0.05)


def test_overfit_claims():
    last = result("overfit.json")["same_images_by_epoch"][-1]
    claimed = re.search(r"AP50 ([\d.]+) and AP ([\d.]+) on these images after (\d+)\s+epochs", TEXT)
    assert claimed.groups() == (f"{last['AP50']:.2f}", f"{last['AP']:.2f}", f"{last['epoch']:.0f}")
    assert last["AP50"] > 95


@pytest.mark.parametrize("boxes", [100, 500])
def test_assigner_claims(boxes):
    row = next(row for row in result("assigner.json")["by_boxes"] if row["boxes"] == boxes)
    (claimed,) = re.findall(rf"with {boxes} objects(?: take)? ([\d.]+) ms", TEXT)
    (faster,) = re.findall(rf"with {boxes} objects.*?([\d.]+)\s+times less", TEXT, re.S)[:1]
    assert claimed == f"{row['assignment_and_loss_ms']:.1f}"
    assert faster == f"{row['times_faster']}"


def test_iteration_claims():
    cases = result("iteration.json")["cases"]
    names = ("gfl-r50-1x, 800x1344, 1 image", "nanodet-m, 320x320, 8 images", "nanodet-plus-m, 416x416, 8 images")
    rows = [next(row for row in cases[name]["by_boxes"] if row["boxes"] == 100) for name in names]
    claimed = re.search(r"assignment is ([\d.]+) % for GFL-R50, ([\d.]+) %\s+for NanoDet-m and ([\d.]+) %", TEXT)
    assert [float(value) for value in claimed.groups()] == [
        pytest.approx(row["assign_percent"], abs=0.051 if row["assign_percent"] > 1 else 0.0051) for row in rows
    ]


def test_camera_claims():
    found = result("camera.json")
    expected = [
        [
            kind,
            *(f"{row[f'{way}_median_fps']:.1f}" for way in ("loop", "sequential", "overlapped")),
            *(f"{row[f'overlapped_over_{way}']:.2f}" for way in ("sequential", "loop")),
        ]
        for kind, row in found["overlap"]["written"].items()
    ]
    assert table("written") == expected
    three = re.search(r"ran at ([\d.]+), ([\d.]+) and ([\d.]+) FPS", TEXT)
    assert list(three.groups()) == [f"{source['fps']:.1f}" for source in found["three_sources"]["sources"]]
    live = found["live"]
    dropped = re.search(r"(\d+) of (\d+) frames were dropped; latency was (\d+) ms \(p50\) and (\d+) ms", TEXT)
    latency = [f"{live['latency_ms'][name]:.0f}" for name in ("p50", "p99")]
    assert list(dropped.groups()) == [str(live["dropped"]), str(live["played"]), *latency]
    assert live["mean_age_ms_last_quarter"] < 1.05 * live["mean_age_ms_first_quarter"]
    memory = found["memory"]["written"]
    grown = re.search(r"memory grew by ([\d.]+) bytes a frame with JSON lines, and by (\d+) with a video", TEXT)
    assert grown[1] == f"{memory['JSON lines']['slope_bytes_per_frame']:.2f}"
    assert grown[2] == f"{memory['video and JSON lines']['slope_bytes_per_frame']:.0f}"
    assert all(run["frames"] == 100_000 for run in memory.values())
    assert memory["JSON lines"]["slope_bytes_per_frame"] < 5


def test_soak_claims():
    found = result("soak.json")
    claimed = re.search(
        r"(\d+) frames with made-up detections, from a stream over HTTP that dropped (\d+) times.*?"
        r"memory grew by ([\d.]+) bytes a frame, and there were (\d+) file handles and (\d+) to (\d+) threads",
        TEXT,
        re.DOTALL,
    )
    counts = [found["frames"], found["reconnects"], f"{found['slope_bytes_per_frame']:.2f}"]
    assert list(claimed.groups()) == [str(n) for n in (*counts, found["handles"][0], *found["threads"])]
    assert found["frames"] == 2 * 3600 * 30
    assert found["handles"][0] == found["handles"][1]
    assert found["slope_bytes_per_frame"] < 5


def test_tracking_table():
    for row, cells in zip(result("tracking.json")["rows"], table("error"), strict=True):
        counts = str(row["switches"]), str(row["identities"]), f"{100 * row['followed'] / row['detections']:.1f} %"
        assert cells == [f"{row['noise']:.0%}".replace("%", " %"), "un" * (not row["edge_sigma"]) + "known", *counts]
    rows = result("tracking.json")["rows"]
    claimed = re.search(r"takes ([\d.]+) ms a frame \(median\) and ([\d.]+) ms \(p99", TEXT).groups()
    assert {f"{row['median_ms']:.1f}" for row in rows} == {claimed[0]}
    assert f"{max(row['p99_ms'] for row in rows):.1f}" == claimed[1]


def test_pipeline_table():
    models = result("pipeline.json")["models"]
    rows = table("model on a CPU")
    assert [title(name) for name in models] == [name for name, *_ in rows]
    for model, (_, *cells) in zip(models.values(), rows, strict=True):
        host = model["nms_host"]
        stages = host["stages_ms"]
        assert cells == [
            f"{model['bare_network_ms']:.1f}",
            f"{host['frame_ms']:.1f}",
            f"{host['of_bare_network']:.2f}",
            f"{stages['preprocess']:.2f}",
            f"{stages['network']:.1f}",
            f"{stages['postprocess']:.2f}",
        ]
        assert host["of_bare_network"] <= 1.15


def test_peers_table():
    expected = [
        [label, title(name), *(f"{value:.2f}" for value in (row["AP"], row["p50_ms_from_0.35"]))]
        for name, model in result("peers.json")["models"].items()
        for label, row in model["pipelines"].items()
    ]
    ratios = [
        f"{row['of_ours_p50_ms_from_0.35']:.2f}"
        for model in result("peers.json")["models"].values()
        for row in model["pipelines"].values()
    ]
    streams = [
        f"{row['throughput_fps']:.1f}" if "throughput_fps" in row else "-"
        for model in result("peers.json")["models"].values()
        for row in model["pipelines"].values()
    ]
    rows = table("pipeline")
    assert [row[5] for row in rows] == streams
    others = [
        row["of_ours_p50_ms_from_0.35"]
        for label, row in result("peers.json")["models"]["nanodet-plus-m-416"]["pipelines"].items()
        if not label.startswith("gfl_edge")
    ]
    assert f"take {min(others):.1f} to {max(others):.1f} times as long" in " ".join(TEXT.split())
    assert [[*row[:3]] for row in rows] == [row[:3] for row in expected]
    assert [float(row[3]) for row in rows] == [pytest.approx(float(row[3]), abs=0.051) for row in expected]
    assert [row[4] for row in rows] == ratios


@pytest.mark.parametrize(("name", "header"), [("ablation", "losses"), ("ablation_coco", "losses, on COCO")])
def test_ablation_tables(name, header):
    summary = result(f"{name}.json")["summary"]
    keys = ("AP", "AP50", "AP75")
    rows = {
        row: [f"{found[f'{k}_mean']:.2f} ± {found[f'{k}_std']:.2f}" for k in keys] for row, found in summary.items()
    }
    assert {name: cells for name, *cells in table(header)} == rows


def test_ablation_claims():
    summary = result("ablation.json")["summary"]
    assert numbers(r"DFL gains (.+?) AP here") == gains(summary, DFL_PAIRS, "AP")
    pairs = [pair[::-1] for pair in QFL_PAIRS]
    lost = [loss for key in ("AP", "AP50", "AP75") for loss in dict.fromkeys(gains(summary, pairs, key))]
    assert numbers(r"QFL loses (.+?), where") == lost
    summary, both = result("ablation_coco.json")["summary"], [("GFL (both)", "ATSS")]
    claims = [(QFL_PAIRS, "AP"), (DFL_PAIRS, "AP"), (DFL_PAIRS, "AP75"), (both, "AP")]
    found = [gain for pairs, key in claims for gain in gains(summary, pairs, key)]
    assert numbers(r"QFL gains (.+?) more over ATSS on COCO") == found


def gains(summary, pairs, key):
    """Of the first of each pair over the second, as documents say it."""
    return [f"{gain:.1f}" for gain in sorted(summary[a][f"{key}_mean"] - summary[b][f"{key}_mean"] for a, b in pairs)]


def numbers(claim):
    """With one decimal, in what TEXT says so."""
    return re.findall(r"-?\d\.\d", re.search(claim, TEXT, re.S)[1])


def test_evaluation_claims():
    found = result("evaluation.json")
    assert found["largest_difference_of_the_twelve_numbers"] == 0
    claimed = re.search(r"of (\d+) images pycocotools took ([\d.]+) s and faster-coco-eval\s+([\d.]+) s", TEXT)
    seconds = [f"{found['seconds'][name]:.1f}" for name in ("pycocotools", "faster-coco-eval")]
    assert list(claimed.groups()) == [str(found["images"]), *seconds]


def test_nms_claims():
    models = result("nms.json")["models"]
    differing = [model["images_whose_kept_set_differs_from_greedy"] for model in models.values()]
    assert re.search(r"except for (\d+) image of one of them", TEXT)[1] == str(sum(differing)) == str(max(differing))
    needed = max(int(rounds) for model in models.values() for rounds in model["rounds_needed"])
    (claimed,) = re.findall(r"(\d+) was the most rounds that those images needed", TEXT)
    assert int(claimed) == needed < result("nms.json")["rounds_in_the_graph"]


def test_every_result_names_device_versions_and_command():
    for path in (CHECKOUT / "benchmarks" / "results").glob("*.json"):
        if path.name != "reference_ap.json":  # other people's numbers, with their source
            assert {"device", "versions", "command"} <= json.loads(path.read_text()).keys(), path.name


@pytest.mark.parametrize("path", [*DOCUMENTS, *OTHER_DOCUMENTS], ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_links_exist(path):
    for target in re.findall(r"\]\(([^)]+)\)", path.read_text()):
        file, _, anchor = target.partition("#")
        assert target.startswith("https://") or (path.parent / file).exists(), target
        if anchor and not target.startswith("https://"):
            assert anchor in anchors(path.parent / file), target


def anchors(path):
    """What the headings of a document are called in a link."""
    return {re.sub(r"[^\w -]", "", line.lstrip("# ").lower()).replace(" ", "-") for line in headings(path)}


def headings(path):
    return [line for line in path.read_text().splitlines() if re.match("#+ ", line)]


def test_the_readme_is_read_in_two_minutes():
    assert len((CHECKOUT / "README.md").read_text().splitlines()) <= 120


def test_the_readme_leads_to_every_document():
    linked = {(CHECKOUT / target).resolve() for target in re.findall(r"\]\(([^)#]+)\)", DOCUMENTS[0].read_text())}
    assert linked >= {*DOCUMENTS[1:], *OTHER_DOCUMENTS}


def test_the_map_has_every_room():
    text = (CHECKOUT / "CONTRIBUTING.md").read_text().partition("## The rooms")[2].partition("\n## ")[0]
    named = {
        name.rstrip("/") for cell in re.findall(r"^\| (`[^|]+)", text, re.M) for name in re.findall(r"`(.+?)`", cell)
    }
    packages = {path.parent for folder in ("gfl_edge", "train") for path in (CHECKOUT / folder).glob("*/__init__.py")}
    packages |= {path.parent for path in CHECKOUT.glob("*/__init__.py")}
    assert named >= {path.relative_to(CHECKOUT).as_posix() for path in packages}
    assert all((CHECKOUT / name).is_dir() for name in named)


def test_images_of_the_documents_are_small():
    images = [path for path in (CHECKOUT / "docs" / "images").iterdir() if path.is_file()]
    assert images
    assert all(path.stat().st_size < 200_000 for path in images)


def shown(row, names, digits):
    """Cells of a row of metrics."""
    return ["none" if row[name] is None else f"{row[name]:.{digits}f}" for name in names]


def test_bundled_card_tables():
    found = result("bundled.json")
    start = {f"{name}, start": row for name, row in found["start"].items()}
    rows = {"reported": found["reported"], "held out": found["held_out"], **start}
    for (name, *cells), (label, row) in zip(table("images"), rows.items(), strict=True):
        expected = shown(row["all"], ("AP", "AP50", "APs", "APm", "APl"), 2) + shown(row["person"], ("AP", "AP50"), 2)
        assert (name, cells) == (label.replace("_", " "), expected)
    crowds = {f"images with {label}": row for label, row in found["reported"]["by_people_in_the_image"].items()}
    people = [
        [name, str(row["images"]), str(row["boxes"]), *shown(row, ("AP", "AP50", "AR100"), 1)]
        for name, row in {"all images": found["reported"]["person"], **crowds}.items()
    ]
    assert table("people in") == people


def test_bundled_card_classes():
    rows = table("class")
    cells = [row[start : start + 4] for start in (0, 4) for row in rows if row[start]]
    by_class = result("bundled.json")["reported"]["by_class"]
    found = {name: row for name, row in by_class.items() if row["AP"] is not None}
    assert {name for name, *_ in cells} == set(found)
    for name, boxes, *numbers in cells:
        assert [boxes, *numbers] == [str(found[name]["boxes"]), *shown(found[name], ("AP", "AP50"), 1)], name


def test_bundled_card_speed():
    for (_, *cells), speed in zip(table("file | ms a frame"), result("bundled.json")["speed"].values(), strict=True):
        numbers = (speed["stream"]["p50_ms"], speed["stream"]["fps"], speed["offline"]["fps"])
        assert cells == [f"{number:.1f}" for number in numbers]


def test_triton_claims():
    found = result("triton.json")
    rates = {(row["protocol"], row["clients"]): row["images_per_second"] for row in found["server"]}
    local, best = found["local"]["images_per_second"], max(rates.values())
    assert rates["HTTP", 2] == best
    claimed = re.search(
        r"served ([\d.]+) images a second at best, by HTTP to two clients, where the detector\s+alone reached ([\d.]+) "
        r"in the same environment, ([\d.]+) of it; sixteen clients had ([\d.]+) by HTTP and ([\d.]+) by gRPC together",
        TEXT,
    ).groups()
    several = (rates["HTTP", 16], rates["gRPC", 16])
    assert claimed == (f"{best:.1f}", f"{local:.1f}", f"{best / local:.2f}", *(f"{rate:.1f}" for rate in several))


def test_bundled_card_claims():
    found, card = result("bundled.json"), (CHECKOUT / "docs" / "bundled.md").read_text()
    assert re.search(r"onnx`, ([\d.]+) MB", card)[1] == f"{found['model']['bytes'] / 1e6:.1f}"
    score, f1 = re.search(r"recommended score \| ([\d.]+): the highest F1 \(([\d.]+) %\)", card).groups()
    assert {"score": float(score), "F1": float(f1)} == found["held_out"]["best"]
    for (target, *cells), row in zip(table("INT8 for"), (found["int8"][name] for name in ("trt", "cpu")), strict=True):
        counts = [f"{row['quantized']} of {row['convolutions']}", str(len(row["float_layers"]))]
        measured = row["measured"]
        values = [f"{measured['reference']['AP']:.2f}", f"{measured['AP']:.2f}", f"{row['bytes'] / 1e6:.2f}"]
        assert cells == counts + values, target
