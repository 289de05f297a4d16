"""The report of `gfl-edge bench`, measured for real with a tiny model."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gfl_edge.bench import measure, paper
from gfl_edge.bench.frames import load_frames
from gfl_edge.bench.protocols import make_protocol
from gfl_edge.bench.report import bench
from gfl_edge.cli.main import main
from gfl_edge.detector import Detector
from gfl_edge.engine.sidecar import Sidecar
from gfl_edge.errors import AnnotationError, InputError, SourceError
from gfl_edge.evaluation.ap import METRICS
from gfl_edge.report.against import read_report
from gfl_edge.report.document import document
from gfl_edge.report.schema import RUN_STAGES, Report
from tests.support.fake_tensorrt import FakeTensorRT, engine_file
from tests.support.small_report import small_request
from tests.support.tiny_engine import SPEC, VERSION, write_engine

pytest.importorskip("onnxruntime")
pytest.importorskip("matplotlib")
pytestmark = pytest.mark.usefixtures("short_turns")


def test_cases_and_boundaries(measured):
    report = Report.from_dict(measured)
    assert [(run.protocol, run.batch) for run in report.runs] == [("stream", 1), ("offline", 1), ("offline", 2)]
    for run in report.runs:
        latency = run.latency
        assert latency.samples >= 2 * measure.MIN_TURN_RUNS
        assert latency.fps == pytest.approx(1000 * run.batch / latency.mean_ms, rel=1e-4)
        inside = [row.mean_ms or 0 for row in run.stages if row.name not in ("read", "draw")]
        assert sum(inside) == pytest.approx(latency.mean_ms, rel=1e-3)
        assert run.stage("nms").mean_ms > 0  # on the host after this model
        assert tuple(row.name for row in run.stages) == RUN_STAGES
        for row in run.stages:
            assert row.mean_ms is not None or row.note
    assert report.runs[0].stage("read").mean_ms > 0
    assert report.runs[0].stage("draw").mean_ms > 0
    assert report.settings.frames.origin == "files"


def test_annotations_are_checked_before_the_measurement(tiny, small_dataset, tmp_path, monkeypatch):
    """Of minutes: before the models are loaded, and whether they fit the models before the first run."""
    content = json.loads((small_dataset / "a.json").read_text())
    bad, other = tmp_path / "bad.json", tmp_path / "other.json"
    other.write_text(json.dumps({**content, "categories": [{"id": 1, "name": "cow"}]}))
    content["annotations"][0]["bbox"] = []
    bad.write_text(json.dumps(content))
    monkeypatch.setattr("gfl_edge.bench.report.run_cases", None)
    with pytest.raises(AnnotationError, match="has no category for"):
        bench(small_request(tiny, images=small_dataset, annotations=other), ["x"], progress=False)
    monkeypatch.setattr("gfl_edge.bench.report.Detector", None)
    with pytest.raises(AnnotationError, match=r"annotation 0 .*'bbox' is \[\], expected four numbers"):
        bench(small_request(tiny, images=small_dataset, annotations=bad), ["x"], progress=False)


def test_a_run_without_images_says_that_they_are_generated(tiny):
    found = bench(small_request(tiny, protocol="gfocal"), ["x"], progress=False)
    frames = found.settings.frames
    assert (frames.origin, frames.seed, frames.folder) == ("generated", 0, None)
    assert "generated images (seed 0)" in " ".join(document(found)[0].words)
    (run,) = found.runs
    assert run.stage("resize").mean_ms is None
    assert run.stage("draw").mean_ms is None
    assert any("32 x 64, that of the paper 800 x 1344" in text for text in run.differences)
    assert all(row.here is None for row in found.paper)  # tiny is none of the papers' networks


def test_a_model_of_the_papers_stands_beside_its_number(measured):
    report = Report.from_dict(measured)
    models = [replace(report.models[0], name="gfl-x101-32x4d-dcn-800x1344")]
    run = replace(report.runs[0], latency=replace(report.runs[0].latency, fps=25.0))
    here = {row.name: row.here for row in paper.rows(models, [run])}
    assert here["gfl-x101-dcn-2x"] is None  # by another protocol
    here = {row.name: row.here for row in paper.rows(models, [replace(run, protocol="gfocal")])}
    assert here["gfl-x101-2x"] is None
    assert here["gfl-x101-dcn-2x"].ratio == pytest.approx(2.5)
    assert here["gfl-x101-dcn-2x"].real_time is False


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


def test_generated_images_are_the_same_for_a_seed():
    assert np.array_equal(load_frames(None, 3).images[5], load_frames(None, 3).images[5])
    assert not np.array_equal(load_frames(None, 3).images[5], load_frames(None, 4).images[5])
    assert load_frames(None).images[0].shape == (800, 1333, 3)


def test_folders_that_cannot_be_used(tmp_path):
    with pytest.raises(SourceError, match="no such folder of images"):
        load_frames(tmp_path / "none")
    (tmp_path / "a.jpg").write_bytes(b"")
    with pytest.raises(SourceError, match=r"none of the first 1 images .*can be used: .*a.jpg is empty"):
        load_frames(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": ()}, "no model"),
        ({"batches": (0,)}, "--batch 0: expected a whole number, 1..4096"),
        ({"annotations": Path("a.json")}, "--annotations a.json without --images"),
        ({"seconds": 0.0}, "--seconds 0.0: expected 0.001.."),
        ({"models": (Path("a.onnx"), Path("a.onnx"))}, None),
    ],
)
def test_requests_that_cannot_be_met(tiny, changes, message):
    if message is None:
        with pytest.raises(InputError, match="is given twice"):
            bench(small_request(tiny, models=(tiny, tiny)), progress=False)
    else:
        with pytest.raises(InputError, match=re.escape(message)):
            small_request(tiny, **changes)


def test_ap_is_that_of_eval(exported, data, tmp_path, capsys):
    """From the same artifact, by the same pipeline."""
    images, annotations = data("coco/val2017_mix397"), data("coco/instances_val2017_mix397.json")
    model = exported("nanodet-m-320")
    words = ["--model", str(model), "--images", str(images), "--annotations", str(annotations), "--limit", "8"]
    assert main(["bench", *words, "--seconds", "0.05", "-o", str(tmp_path)]) == 0
    (found,) = read_report(tmp_path).models
    capsys.readouterr()
    assert main(["eval", *words]) == 0
    alone = json.loads(capsys.readouterr().out)
    assert found.accuracy.metrics == pytest.approx({name: alone[name] for name in METRICS}, rel=1e-5)
    assert found.accuracy.images == alone["images"] == 8
    assert found.sha256 == alone["model"]["sha256"]


def test_an_engine_on_a_gpu(gpu, monkeypatch, tmp_path):
    """A fake one: its stages are separate, it has no counters, and its file holds no graph."""
    monkeypatch.setitem(sys.modules, "tensorrt", FakeTensorRT(gpu, "tensorrt", VERSION))
    monkeypatch.setitem(sys.modules, "pynvml", None)
    spec = replace(SPEC, nms="none", class_names=("cat", "dog"), max_candidates=40, score_threshold=0.3)
    sidecar = Sidecar("tensorrt", VERSION, ("sm75",), 3, "0" * 64, "", spec, 1.0, 9, 0)
    engine = write_engine(tmp_path / "tiny.engine", engine_file(spec, 3), sidecar)
    found = bench(small_request(engine, backend="auto", batches=(3,)), ["x"], progress=False)
    (model,) = found.models
    assert (model.cost, model.bounds, model.nms) == (None, (), "kernels")
    assert model.backend.device == "Fake RTX 2080 Ti (sm75)"
    for run in found.runs:
        assert {"power", "throttling"} <= {row.what for row in run.device.missing}
        assert run.stage("resize").p50_ms == run.batch  # a millisecond for each frame, by the fake GPU's clock
        assert run.stage("upload").p50_ms == run.stage("network").p50_ms == run.stage("download").p50_ms == 1
        assert run.stage("nms").p50_ms >= 1
    words = " ".join(text for section in document(found) for text in section.words)
    assert "engines, whose graphs are not in the file" in words
    with pytest.raises(InputError, match=r"--batch 4: .*tiny\.engine takes 3 at most"):
        bench(small_request(engine, backend="auto", batches=(4,)), ["x"], progress=False)
