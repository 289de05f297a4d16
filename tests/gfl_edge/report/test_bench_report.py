"""The report: measured for real with a tiny model, its pages from stored values, and the regression floor."""

from __future__ import annotations

import copy
import json
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from gfl_edge.bench import measure, paper, timing
from gfl_edge.bench.frames import generated_frame, load_frames
from gfl_edge.bench.measure import Case, run_cases, warnings
from gfl_edge.bench.protocols import Sample, make_protocol
from gfl_edge.bench.report import BenchRequest, bench
from gfl_edge.bench.stages import STAGES, StageReader, summarize_stages
from gfl_edge.cli.bench import write_report
from gfl_edge.cli.main import main
from gfl_edge.detector import Detector
from gfl_edge.engine.sidecar import Sidecar
from gfl_edge.errors import InputError, SourceError
from gfl_edge.evaluation.ap import METRICS
from gfl_edge.report.against import changes, read_report
from gfl_edge.report.document import document
from gfl_edge.report.html import page
from gfl_edge.report.markdown import table_text
from tests.gfl_edge.backends.test_backend_tensorrt import SPEC, VERSION, tiny_onnx, write_engine
from tests.support.fake_gpu import FakeTensorRT, engine_file

pytest.importorskip("onnxruntime")
pytest.importorskip("matplotlib")
CHECKOUT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    """Turns and warm-ups of milliseconds."""
    monkeypatch.setattr(measure, "TURN_SECONDS", 0.01)
    monkeypatch.setattr(timing.warm_up, "__kwdefaults__", {**timing.warm_up.__kwdefaults__, "most_runs": 20})


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny") / "tiny.onnx"
    tiny_onnx(path)
    return path


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    generator = np.random.default_rng(0)
    for number in (1, 2, 3):
        cv2.imwrite(str(folder / f"{number}.png"), generated_frame(generator, (60, 90)))
    box = {"category_id": 1, "bbox": [5, 5, 40, 30], "area": 1200, "iscrowd": 0}
    content = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 90, "height": 60} for i in (1, 2, 3)],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [{"id": i, "image_id": i, **box} for i in (1, 2, 3)],
    }
    (folder / "a.json").write_text(json.dumps(content))
    return folder


def request(tiny, **changes):
    return replace(BenchRequest((tiny,), backend="onnxruntime", seconds=0.02), **changes)


@pytest.fixture(scope="module")
def measured(tiny, dataset):
    """A report with everything that this machine can have, through JSON and back."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "TURN_SECONDS", 0.01)
        asked = request(tiny, batches=(1, 2), images=dataset, annotations=dataset / "a.json")
        return json.loads(json.dumps(bench(asked, ["gfl-edge", "bench"], progress=False)))


@pytest.fixture
def stored(measured):
    """The same as it may look on a GPU: with every value that is missing on a CPU in a virtual machine."""
    full = copy.deepcopy(measured)
    for run in full["runs"]:
        ranges = [{"name": "sm", "min": 1350.0, "mean": 1500.0, "max": 1545.0}]
        run["device"].update(
            clocks_mhz=ranges,
            temperatures_c=[{**ranges[0], "name": "gpu", "mean": 70.0}],
            powers_w=[{**ranges[0], "name": "total", "mean": 220.0}],
            energy_per_image_j=1.25,
            energy_from="counter",
            throttled=True,
            throttle_reasons=["power cap reached"],
            missing=[{"what": "memory", "why": "NVML: Not Supported"}],
        )
    here = {
        "model": "tiny-fp32",
        "device": "RTX 2080 Ti",
        "fps": 33.3,
        "ratio": 3.33,
        "real_time": True,
        "ap": 48.1,
    }
    next(row for row in full["paper"] if row["target"])["here"] = here
    return full


def flat(value, path=""):
    """Path and value of every leaf, list elements as []; what has keys of its own is a leaf."""
    if isinstance(value, dict) and path not in ("versions", "models[].backend", "models[].accuracy.metrics"):
        for key, part in value.items():
            yield from flat(part, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for part in value:
            yield from flat(part, f"{path}[]")
    else:
        yield path, value


def documented():
    text = (CHECKOUT / "docs" / "report.md").read_text()
    return dict(re.findall(r"^\| `([\w.\[\]]+)` \| ([\w ]+) \|", text.partition("## Keys")[2], re.MULTILINE))


TYPES = {"integer": int, "number": (int, float), "string": str, "boolean": bool, "object": dict, "null": type(None)}


def fits(value, kind):
    if " or " in kind:
        return any(fits(value, part) for part in kind.split(" or "))
    if kind.startswith("list of "):
        return isinstance(value, list) and all(fits(part, kind.removeprefix("list of ")) for part in value)
    return isinstance(value, TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))


def test_documented_keys_are_the_real_ones(stored):
    kinds = documented()
    for path, value in flat(stored):
        assert path in kinds, f"{path} is not documented"
        assert fits(value, kinds[path]), (path, value, kinds[path])
    parents = {path for path, kind in kinds.items() if "object or null" in kind}
    assert kinds.keys() - {path for path, _ in flat(stored)} <= parents


def test_what_this_machine_lacks_is_documented_as_null(measured):
    kinds = documented()
    for path, value in flat(measured):
        if path.partition("[].device.")[2] not in ("clocks_mhz", "temperatures_c", "powers_w"):
            assert fits(value, kinds[path]), (path, value, kinds[path])


def test_cases_and_boundaries(measured):
    assert [(run["protocol"], run["batch"]) for run in measured["runs"]] == [
        ("stream", 1),
        ("offline", 1),
        ("offline", 2),
    ]
    for run in measured["runs"]:
        latency = run["latency"]
        assert latency["samples"] >= 2 * measure.LEAST_TURN_RUNS
        assert latency["fps"] == pytest.approx(1000 * run["batch"] / latency["mean_ms"], rel=1e-4)
        inside = {row["name"]: row["mean_ms"] for row in run["stages"] if row["name"] not in ("read", "draw")}
        assert sum(value or 0 for value in inside.values()) == pytest.approx(latency["mean_ms"], rel=1e-3)
        assert inside["nms"] > 0  # on the host behind this model
        assert [row["name"] for row in run["stages"]] == list(STAGES)
        for row in run["stages"]:
            assert row["mean_ms"] is not None or row["note"]
    stream = {row["name"]: row["mean_ms"] for row in measured["runs"][0]["stages"]}
    assert stream["read"] > 0
    assert stream["draw"] > 0
    assert measured["settings"]["frames"]["origin"] == "files"


def test_a_run_without_pictures_says_that_they_are_generated(tiny):
    found = bench(request(tiny, protocol="gfocal"), ["x"], progress=False)
    frames = found["settings"]["frames"]
    assert (frames["origin"], frames["seed"], frames["folder"]) == ("generated", 0, None)
    assert "generated pictures (seed 0)" in " ".join(document(found)[0].words)
    (run,) = found["runs"]
    by_name = {row["name"]: row for row in run["stages"]}
    assert by_name["resize"]["mean_ms"] is None
    assert by_name["draw"]["mean_ms"] is None
    assert any("32 x 64, that of the paper 800 x 1344" in text for text in run["differences"])
    assert all(row["here"] is None for row in found["paper"])  # tiny is none of the papers' networks


def test_a_model_of_the_papers_stands_beside_its_number(measured):
    models, runs = copy.deepcopy(measured["models"]), copy.deepcopy(measured["runs"][:1])
    models[0]["name"] = "gfl-x101-32x4d-dcn-800x1344"
    runs[0]["latency"]["fps"] = 25.0
    rows = {row["name"]: row for row in paper.rows(models, runs)}
    assert rows["gfl-x101-dcn-2x"]["here"] is None  # by another protocol
    runs[0]["protocol"] = "gfocal"
    here = {row["name"]: row["here"] for row in paper.rows(models, runs)}
    assert here["gfl-x101-2x"] is None
    assert here["gfl-x101-dcn-2x"]["ratio"] == pytest.approx(2.5)
    assert here["gfl-x101-dcn-2x"]["real_time"] is False


def test_gfocal_finds_what_the_detector_finds(tiny):
    """The protocol takes the pipeline apart; its network gets the same input."""
    frames = load_frames(None)
    with Detector(tiny, "onnxruntime") as detector:
        seen = []
        run = detector.backend.run
        detector.backend.run = lambda images: seen.append(images.copy()) or run(images)
        make_protocol("gfocal", detector, frames, 1).step()
        detector(frames.images[0])
    assert np.array_equal(*seen)


def test_generated_pictures_are_the_same_for_a_seed():
    assert np.array_equal(load_frames(None, 3).images[5], load_frames(None, 3).images[5])
    assert not np.array_equal(load_frames(None, 3).images[5], load_frames(None, 4).images[5])
    assert load_frames(None).images[0].shape == (800, 1333, 3)


def test_folders_that_cannot_be_used(tmp_path):
    with pytest.raises(SourceError, match="no such folder of images"):
        load_frames(tmp_path / "none")
    (tmp_path / "a.jpg").write_bytes(b"")
    with pytest.raises(SourceError, match="can be read"):
        load_frames(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": ()}, "no model"),
        ({"batches": (0,)}, "--batch 0: expected numbers from 1 on"),
        ({"annotations": Path("a.json")}, "--annotations a.json without --images"),
        ({"seconds": 0.0}, "--seconds 0: expected a positive number"),
        ({"models": (Path("a.onnx"), Path("a.onnx"))}, None),
    ],
)
def test_requests_that_cannot_be_met(tiny, changes, message):
    if message is None:
        with pytest.raises(InputError, match="is given twice"):
            bench(request(tiny, models=(tiny, tiny)), progress=False)
    else:
        with pytest.raises(InputError, match=re.escape(message)):
            request(tiny, **changes)


class Scripted:
    """A protocol whose times are told, and that notes when it ran."""

    name, batch = "stream", 1

    def __init__(self, name, log):
        self._name, self._log, self.stages = name, log, StageReader(Fixed())

    def step(self):
        self._log.append(self._name)
        return Sample(5.0, {"network": 4.0, "nms": 0.5})

    def differences(self):
        return []


class Nothing:
    name, missing = "none", {"throttling": "nothing"}

    def read(self):
        from gfl_edge.bench.device.counters import Reading

        return Reading()


class Fixed:
    """A detector of which only the notes on stages are asked."""

    class spec:  # noqa: N801
        has_nms = False

    class backend:  # noqa: N801
        name = "openvino"

        class spec:  # noqa: N801
            has_nms = False

        @staticmethod
        def describe():
            return {"device": "CPU"}


def test_models_take_turns_and_the_first_run_of_a_turn_does_not_count(monkeypatch):
    log = []
    monkeypatch.setattr(measure, "TURN_SECONDS", 1e-9)
    cases = [Case(name, Scripted(name, log), measure.Recorder(Nothing())) for name in "abc"]
    runs = run_cases(cases, 4e-9, progress=False)
    warm_up, turns = log[:45], log[45:]
    assert [warm_up.count(name) for name in "abc"] == [15, 15, 15]
    per_turn = 1 + measure.LEAST_TURN_RUNS
    orders = ["".join(turns[start : start + 3 * per_turn : per_turn]) for start in range(0, len(turns), 3 * per_turn)]
    assert len(orders) == 4
    assert all(sorted(order) == ["a", "b", "c"] for order in orders)
    assert len(set(orders)) > 1
    for run in runs:
        assert run["latency"]["samples"] == 4 * measure.LEAST_TURN_RUNS
        other = next(row for row in run["stages"] if row["name"] == "other")
        assert other["mean_ms"] == pytest.approx(0.5)


class Gpu:
    """What stages are told apart, by the kind of backend."""

    def __init__(self, nms, stage_ms=None):
        class Backend:
            name, spec, max_batch, nms_place = "rtx", Fixed.spec, 1, nms

            def run(self, images): ...
            def run_frames(self, frames, input_hw): ...
            def close(self): ...
            def time_stages(self): ...
            def describe(self):
                return {"device": "GPU"}

        self.backend = Backend()
        if stage_ms is not None:
            self.backend.stage_ms = stage_ms
        self.spec = Fixed.spec


LAST_MS = {"preprocess": 0.1, "network": 9.0, "postprocess": 1.0}


def test_stages_of_a_gpu():
    whole = StageReader(Gpu("kernels"))
    assert whole.split(LAST_MS) == {"network": 9.0}
    said = whole.notes(("network", "draw"))
    assert said["nms"] == said["upload"] == said["resize"] == "part of network: the backend does not separate it"
    assert StageReader(Gpu("host")).split(LAST_MS) == {"network": 9.0, "nms": 1.0}
    parts = {"upload": 1.0, "resize": 0.5, "network": 5.0, "nms": 1.5, "download": 0.2}
    assert StageReader(Gpu("kernels", parts)).split(LAST_MS) == parts
    assert StageReader(Gpu("graph")).notes(("network",))["nms"] == "part of network: NMS is in the graph"


def test_rows_of_stages():
    samples = [{"read": 3.0, "network": 4.0}, {"read": 5.0, "network": 6.0}]
    rows = {row["name"]: row for row in summarize_stages(samples, [5.0, 8.0], {"upload": "why"})}
    assert (rows["read"]["mean_ms"], rows["network"]["p50_ms"]) == (4, 5)
    assert rows["other"]["mean_ms"] == pytest.approx(1.5)  # reading is no part of the latency
    assert rows["upload"] == {"name": "upload", "mean_ms": None, "p50_ms": None, "p95_ms": None, "note": "why"}


QUIET = {"load_average_1min": 0.1, "cores": 2, "cpu_percent_of_others": 1.0, "cpu_percent_stolen": 0.0}


def quiet_run(**latency):
    values = {"p50_ms": 10.0, "p95_ms": 11.0, "samples": 500, **latency}
    device = {"throttled": None, "throttle_reasons": []}
    return {
        **{"model": "m", "protocol": "stream", "batch": 1},
        **{"latency": values, "warm_up": {"stable": True}, "device": device},
    }


def test_a_quiet_machine_has_no_warnings():
    assert warnings(QUIET, [quiet_run()]) == []
    assert (
        warnings({**QUIET, **dict.fromkeys(("load_average_1min", "cpu_percent_of_others", "cpu_percent_stolen"))}, [])
        == []
    )


@pytest.mark.parametrize(
    ("machine", "run", "message"),
    [
        ({"load_average_1min": 1.5}, quiet_run(), "busy before it began: load average 1.50 on 2 cores"),
        ({"cpu_percent_of_others": 30.0}, quiet_run(), "other processes took 30 %"),
        ({"cpu_percent_stolen": 4.0}, quiet_run(), "other virtual machines"),
        ({}, quiet_run(p95_ms=13.0), "p95 is up to 1.30 times p50, so something disturbed every run"),
        ({}, quiet_run(samples=40), "with 40 samples"),
        ({}, {**quiet_run(), "warm_up": {"stable": False}}, "never became stable"),
        ({}, {**quiet_run(), "device": {"throttled": True, "throttle_reasons": ["hot"]}}, r"throttled \(hot\)"),
    ],
)
def test_what_is_warned_of(machine, run, message):
    (found,) = warnings({**QUIET, **machine}, [run])
    assert re.search(message, found)


class Page(HTMLParser):
    """Checks nesting, and collects what a page refers to and holds."""

    VOID = ("meta", "br", "hr", "img", "link", "input")

    def __init__(self):
        super().__init__()
        self.open, self.references, self.ids, self.tables, self.headings = [], [], [], [], []
        self.images, self.texts = [], []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if tag not in self.VOID:
            self.open.append(tag)
        self.references += [
            values[name] for name in ("src", "href", "xlink:href", "srcset", "data", "action") if name in values
        ]
        self.references += re.findall(r"url\(([^)]*)\)", " ".join(str(value) for value in values.values()))
        self.ids += [values["id"]] if "id" in values else []
        assert tag not in ("script", "iframe", "link", "object", "embed")
        if tag == "th":
            assert values["scope"] in ("col", "row")
        if tag == "svg":
            assert values["role"] == "img"
            self.images.append(values["aria-label"])

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.texts.append(data)


def parse(report):
    parser, text = Page(), page("Title", document(report))
    parser.feed(text)
    parser.close()
    return parser, text


def test_the_page_needs_nothing_else(stored):
    parser, text = parse(stored)
    assert parser.open == []
    assert all(reference.startswith("#") for reference in parser.references), parser.references
    assert {reference[1:] for reference in parser.references} <= set(parser.ids)
    assert len(set(parser.ids)) == len(parser.ids)
    assert "@import" not in text
    assert not re.findall(r"https?://(?!www\.w3\.org/)", text)
    assert len(parser.images) == 4
    assert all(len(label) > 20 for label in parser.images)


def test_the_page_says_what_was_and_was_not_measured(stored):
    texts = " ".join(parse(stored)[0].texts)
    for wanted in (
        "tiny",
        "not measured",
        "power cap reached",
        "gfl-x101-dcn-2x (the target)",
        "48.3",
        "3.33",
        "Jetson",
    ):
        assert wanted in texts or wanted in json.dumps(stored["gpus"])
    assert "bounds from the graph's own multiplications and bytes, not measurements" in texts
    assert "Command: gfl-edge bench" in texts


def test_pages_of_a_report_with_little_in_it(measured):
    """No AP, no batches, an engine without a graph, a model that did not run."""
    little = copy.deepcopy(measured)
    little["runs"] = little["runs"][:1]
    little["settings"]["annotations"] = None
    little["models"][0].update(accuracy=None, cost=None, bounds=[])
    parser, _ = parse(little)
    texts = " ".join(parser.texts)
    assert "AP was not measured" in texts
    assert "Throughput by batch was not measured" in texts
    assert "No bound" in texts
    assert len(parser.images) == 2
    idle = copy.deepcopy(measured)
    idle["runs"], idle["models"][0]["backend"], idle["models"][0]["memory"] = [], None, None
    assert "not run" in " ".join(parse(idle)[0].texts)


def test_text_is_escaped(stored):
    stored["command"] = "<script>alert(1)</script>"
    parser, text = parse(stored)
    assert "&lt;script&gt;" in text
    assert "script" in " ".join(parser.texts)


def test_markdown_tables_are_aligned(stored):
    for section in document(stored):
        for table in section.tables:
            lines = table_text(table).splitlines()
            assert len(lines) == 2 + len(table.rows)
            assert len({len(line) for line in lines}) == 1
            assert all(len(row) == len(table.headers) for row in table.rows)


def test_the_files(stored, tmp_path):
    (tmp_path / "other.txt").write_text("stays")
    write_report(stored, tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"report.json", "report.html", "report.md", "other.txt"} <= names
    text = (tmp_path / "report.md").read_text()
    pictures = set(re.findall(r"\]\((\S+\.svg)\)", text))
    assert pictures == {name for name in names if name.endswith(".svg")} != set()
    assert read_report(tmp_path) == read_report(tmp_path / "report.json") == stored


def slower(report, factor, ap_drop=0.0):
    new = copy.deepcopy(report)
    for run in new["runs"]:
        run["latency"]["p50_ms"] *= factor
    for model in new["models"]:
        model["accuracy"]["metrics"]["AP"] -= ap_drop
    return new


@pytest.mark.parametrize(
    ("factor", "ap_drop", "failed"),
    [(1.0, 0.0, 0), (1.09, 0.19, 0), (0.5, -3.0, 0), (1.11, 0.0, 3), (1.0, 0.21, 3), (2.0, 5.0, 6)],
)
def test_what_is_a_regression(stored, factor, ap_drop, failed):
    found = changes(stored, slower(stored, factor, ap_drop), 1.1, 0.2)
    assert len(found) == 6  # p50 and AP of three runs
    assert sum(change.failed for change in found) == failed


def test_reports_that_do_not_compare(stored):
    other = copy.deepcopy(stored)
    other["device"]["cpu"] = "another"
    with pytest.raises(InputError, match=r"the old report is of .* --any-device"):
        changes(stored, other, 1.1, 0.2)
    assert changes(stored, other, 1.1, 0.2, any_device=True)
    other = copy.deepcopy(stored)
    other["models"][0]["backend"]["device"] = "another GPU"
    with pytest.raises(InputError, match="another GPU"):
        changes(stored, other, 1.1, 0.2)
    other = copy.deepcopy(stored)
    other["models"][0]["backend"]["name"] = "openvino"
    with pytest.raises(InputError, match="no model, protocol, batch and backend in common"):
        changes(stored, other, 1.1, 0.2)
    other = copy.deepcopy(stored)
    other["models"][0]["accuracy"]["images"] = 5000
    with pytest.raises(InputError, match=r"the old report's AP is on 3 images of a\.json, this one's on 5000"):
        changes(stored, other, 1.1, 0.2)


def test_ap_that_one_has_not_is_left_out(stored):
    other = copy.deepcopy(stored)
    other["models"][0]["accuracy"] = None
    assert {change.what for change in changes(stored, other, 1.1, 0.2)} == {"p50, ms"}


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 99}'])
def test_files_that_are_no_reports(tmp_path, content):
    (tmp_path / "report.json").write_text(content)
    with pytest.raises(InputError, match=r"gfl-edge bench -o REPORT|format 99, this gfl_edge reads 1"):
        read_report(tmp_path)
    with pytest.raises(InputError, match="is no report"):
        read_report(tmp_path / "none.json")


def test_the_command(tiny, tmp_path, capsys):
    words = ["bench", "--model", str(tiny), "--backend", "onnxruntime", "--seconds", "0.02", "-o", str(tmp_path / "r")]
    assert main(words) == 0
    captured = capsys.readouterr()
    assert "| tiny " in captured.out
    assert captured.out.rstrip().endswith("report.html")
    stored = read_report(tmp_path / "r")
    assert stored["runs"][0]["model"] == "tiny-fp32-nonms"  # as the file was exported
    old = tmp_path / "old.json"
    old.write_text(json.dumps(slower_file(stored, 1e-3)))
    assert main([*words, "--against", str(old)]) == 1
    captured = capsys.readouterr()
    assert "REGRESSION" in captured.out
    assert "1 of 1 numbers are worse" in captured.err
    old.write_text(json.dumps(slower_file(stored, 1e3)))
    assert main([*words, "--against", str(old)]) == 0
    assert "no regression" in capsys.readouterr().err


def slower_file(report, factor):
    new = copy.deepcopy(report)
    for run in new["runs"]:
        run["latency"]["p50_ms"] *= factor
    return new


def test_an_old_report_that_is_missing_is_noticed_before_measuring(tiny, tmp_path, capsys):
    assert main(["bench", "--model", str(tiny), "-o", str(tmp_path / "r"), "--against", str(tmp_path / "old")]) == 1
    assert "is no report" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


def test_ap_is_that_of_eval(exported, data, tmp_path, capsys):
    """From the same artifact, by the same pipeline."""
    images, annotations = data("coco/val2017_mix397"), data("coco/instances_val2017_mix397.json")
    model = exported("nanodet-m-320")
    words = ["--model", str(model), "--images", str(images), "--annotations", str(annotations), "--limit", "8"]
    assert main(["bench", *words, "--seconds", "0.05", "-o", str(tmp_path)]) == 0
    found = read_report(tmp_path)["models"][0]
    capsys.readouterr()
    assert main(["eval", *words]) == 0
    alone = json.loads(capsys.readouterr().out)
    assert found["accuracy"]["metrics"] == pytest.approx({name: alone[name] for name in METRICS}, rel=1e-5)
    assert found["accuracy"]["images"] == alone["images"] == 8
    assert found["sha256"] == alone["model"]["sha256"]


def test_help_says_every_choice(capsys):
    with pytest.raises(SystemExit):
        main(["bench", "--help"])
    text = capsys.readouterr().out
    assert "{stream,offline,gfocal}" in text
    assert "--max-slowdown" in text


def test_an_engine_on_a_gpu(gpu, monkeypatch, tmp_path):
    """A fake one: its stages are told apart, it has no counters, and its file holds no graph."""
    monkeypatch.setitem(sys.modules, "tensorrt", FakeTensorRT(gpu, "tensorrt", VERSION))
    monkeypatch.setitem(sys.modules, "pynvml", None)
    spec = replace(SPEC, nms="none", class_names=("cat", "dog"), max_candidates=40, score_threshold=0.3)
    sidecar = Sidecar("tensorrt", VERSION, ("sm75",), 3, "0" * 64, "", spec, 1.0)
    engine = write_engine(tmp_path / "tiny.engine", engine_file(spec, 3), sidecar)
    found = bench(request(engine, backend="auto", batches=(3,)), ["x"], progress=False)
    (model,) = found["models"]
    assert (model["cost"], model["bounds"], model["nms"]) == (None, [], "kernels")
    assert model["backend"]["device"] == "Fake RTX 2080 Ti (sm75)"
    for run in found["runs"]:
        assert {"power", "throttling"} <= {row["what"] for row in run["device"]["missing"]}
        by_name = {row["name"]: row for row in run["stages"]}
        assert by_name["resize"]["p50_ms"] == run["batch"]  # a millisecond for each frame, by the fake GPU's clock
        assert by_name["upload"]["p50_ms"] == by_name["network"]["p50_ms"] == by_name["download"]["p50_ms"] == 1
        assert by_name["nms"]["p50_ms"] >= 1
    assert "engines, whose graphs are not in the file" in " ".join(parse(found)[0].texts)
    gpu.closed = False  # to be opened again
    with pytest.raises(InputError, match=r"--batch 4: .*tiny\.engine takes 3 at most"):
        bench(request(engine, backend="auto", batches=(4,)), ["x"], progress=False)
