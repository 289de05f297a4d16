"""The whole road in a few minutes: export, an FP16 engine for the RTX 2080 Ti, a video, pictures, FPS and AP."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

if __package__ in (None, ""):  # run as a script: the checkout's packages are not installed
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from export.default_model import DEFAULT_NAME, data_folder, default_weights
from export.to_onnx import ExportRequest, export_onnx
from gfl_edge import optional
from gfl_edge.build import build_engine, plan
from gfl_edge.camera import run_camera
from gfl_edge.camera_summary import CameraSummary
from gfl_edge.commandline import log, run_command
from gfl_edge.detector import Detector
from gfl_edge.draw import draw_detections, picture_sheet
from gfl_edge.errors import InputError
from gfl_edge.evaluate import Evaluation, evaluate
from gfl_edge.files import whole_file
from gfl_edge.sources import read_image

FOLDER = Path("artifacts/demo")
VIDEO, IMAGES, ANNOTATIONS = "video/vtest.avi", "coco/val2017_mix397", "coco/instances_val2017_mix397.json"
TARGET = "sm75"  # RTX 2080 Ti
SHEET_PICTURES, AP_IMAGES = 12, 50
SCORE = 0.35


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="benchmarks/demo.py", description=__doc__)
    return run_command(parser, lambda args: _run(), argv)


def _run() -> int:
    start = time.perf_counter()
    weights, data = default_weights(), data_folder()
    for part in (VIDEO, IMAGES, ANNOTATIONS):
        if not (data / part).exists():
            raise InputError(f"put {part} at {data / part}, or set GFL_EDGE_DATA to the folder that holds it")
    onnx, engine = FOLDER / f"{DEFAULT_NAME}-fp32.onnx", _build(weights)
    export_onnx(ExportRequest(weights), onnx)
    with Detector(onnx) as detector:
        log(f"detecting in {VIDEO} on the CPU with {detector.backend.name}")
        camera = run_camera(detector, data / VIDEO, show=False, output=FOLDER / "vtest.mp4", score=SCORE)
        sheet = _draw_sheet(detector, data / IMAGES)
        ap = evaluate(detector, data / IMAGES, data / ANNOTATIONS, limit=AP_IMAGES)
    _report(onnx, engine, sheet, camera, ap)
    log(f"done in {time.perf_counter() - start:.0f} s")
    return 0


def _build(weights: Path) -> Path:
    onnx = FOLDER / f"{DEFAULT_NAME}-fp16.onnx"
    export_onnx(ExportRequest(weights, precision="fp16"), onnx)
    engine, _ = build_engine(plan(onnx, "rtx", (TARGET,)), FOLDER)
    return engine


def _draw_sheet(detector: Detector, folder: Path) -> Path:
    """Annotated pictures on one sheet."""
    images = [image for path in sorted(folder.iterdir())[:SHEET_PICTURES] if (image := read_image(path)) is not None]
    drawn = [draw_detections(image, detector(image).above(SCORE)) for image in images]
    sheet = FOLDER / "pictures.jpg"
    with whole_file(sheet) as temporary:
        optional.load("cv2").imwrite(str(temporary), picture_sheet(drawn, columns=4, width=1600))
    return sheet


def _report(onnx: Path, engine: Path, sheet: Path, camera: CameraSummary, ap: Evaluation) -> None:
    detection_ms = sum(camera.stage_ms[stage] for stage in ("preprocess", "network", "postprocess"))
    rows = {
        "ONNX, FP32": onnx,
        f"engine, FP16, {TARGET}": engine,
        "annotated video": camera.output,
        "picture sheet": sheet,
        "video on this CPU": f"{camera.fps:.1f} FPS over {camera.frames} frames, drawing and writing included",
        "of that, detection": f"{detection_ms:.1f} ms a frame",
        f"AP on {ap.images} images": f"{ap.metrics['AP']:.1f} (AP50 {ap.metrics['AP50']:.1f})",
    }
    for name, value in rows.items():
        print(f"{name:24} {value}")


if __name__ == "__main__":
    sys.exit(main())
