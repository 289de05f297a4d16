"""Published ONNX files of others, adopted: they are recognized, and have the AP of the networks."""

from __future__ import annotations

import pytest

from gfl_edge import optional
from gfl_edge.adopt.run import AdoptRequest, adopt
from gfl_edge.detector import Detector
from gfl_edge.evaluation.ap import evaluate
from tests.support.required import skip_unless_required

# Family, resize rule and AP on the 397 images
FILES = {
    "nanodet_m/nanodet_m_320.onnx": ("nanodet", "letterbox", 21.32),
    "nanodet_m/nanodet_m_416.onnx": ("nanodet", "letterbox", 23.78),
    "picodet/picodet_s_416_coco.onnx": ("picodet", "stretch-cubic", 30.59),
}


def adopted(data, folder, name, **fields):
    return adopt(AdoptRequest(source=data(f"weights/{name}"), output=folder / "m.onnx", **fields))


@pytest.mark.parametrize("name", ["nanodet_m/nanodet_m_320.onnx", "picodet/picodet_s_416_coco.onnx"])
def test_they_are_recognized(data, tmp_path, name):
    spec = adopted(data, tmp_path, name).spec
    family, resize, _ = FILES[name]
    assert (spec.family, spec.resize, spec.num_classes, spec.precision) == (family, resize, 80, "fp32")
    assert spec.score_threshold == (0.025 if family == "picodet" else 0.05)


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_their_ap_is_that_of_the_networks(data, tmp_path, name):
    images, annotations = data("coco/val2017_mix397"), data("coco/instances_val2017_mix397.json")
    found = adopted(data, tmp_path, name)
    with Detector(found.path, performance="throughput") as detector:
        ap = evaluate(detector, images, annotations, progress=False).percent("AP")
    assert ap == pytest.approx(FILES[name][2], abs=0.1)


@pytest.mark.slow
def test_an_engine_of_picodet(data, tmp_path):
    if not optional.available("tensorrt_rtx"):
        skip_unless_required("TensorRT-RTX is not installed")
    from gfl_edge.engine.build import build_engine, plan

    found = adopted(data, tmp_path, "picodet/picodet_s_416_coco.onnx", fp16=True)
    engine, sidecar = build_engine(plan(found.path, "rtx", ["sm75"]), tmp_path, progress=False)
    assert engine.is_file()
    assert (sidecar.spec.nms, sidecar.spec.resize, sidecar.spec.precision) == ("none", "stretch-cubic", "fp16")
