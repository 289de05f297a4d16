"""The command line: gfl-edge camera | detect | build | eval | compare | bench | models | doctor."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from gfl_edge._version import __version__
from gfl_edge.backends.nms import NmsChoice
from gfl_edge.backends.select import BackendName
from gfl_edge.cli import bench as command
from gfl_edge.cli import build as build_command
from gfl_edge.console import FAILURE, log, run_command
from gfl_edge.zoo.bundled import DESCRIPTION, PROPERTIES

if TYPE_CHECKING:
    from gfl_edge.detector import Detector

EVALUATORS = ("pycocotools", "faster-coco-eval")  # those of gfl_edge.evaluation.ap, which needs more than --help may


def build_parser() -> argparse.ArgumentParser:
    """The parser of every sub-command; needs no optional package."""
    parser = argparse.ArgumentParser(prog="gfl-edge", description="Run and measure GFL detectors.")
    parser.add_argument("--version", action="version", version=f"gfl-edge {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    _add_camera(commands.add_parser("camera", help="run on a camera, video, stream or folder of pictures"))
    _add_detect(commands.add_parser("detect", help="write annotated copies of pictures"))
    _add_build(commands.add_parser("build", help="a TensorRT engine of an ONNX file"))
    _add_eval(commands.add_parser("eval", help="COCO AP through the pipeline that runs on the device"))
    _add_compare(commands.add_parser("compare", help="two models side by side: AP, size, latency, agreement"))
    _add_bench(commands.add_parser("bench", help="speed, stages, memory, energy and AP, as a report"))
    _add_models(commands.add_parser("models", help="the published weights that are known by name"))
    _add_doctor(commands.add_parser("doctor", help="what this machine has and lacks, and the commands that add it"))
    return parser


def _add_model_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", type=Path, metavar="M", help=f".onnx or .engine file (default: {DESCRIPTION})")
    _add_backend_arguments(parser)


def _add_backend_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--backend", choices=get_args(BackendName), default="auto", help="what runs it (default: auto)")
    parser.add_argument("--nms", choices=get_args(NmsChoice), default="auto", help="where NMS runs (default: auto)")


def _add_score_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--score", type=float, default=0.35, metavar="S", help="draw from this score on (default: 0.35)"
    )


def _add_camera(parser: argparse.ArgumentParser) -> None:
    _add_model_arguments(parser)
    _add_score_argument(parser)
    parser.add_argument(
        "--source",
        action="append",
        help="camera number, video file, URL, GStreamer pipeline or folder (default: 0); again for each further one",
    )
    window = parser.add_mutually_exclusive_group()
    window.add_argument("--show", action="store_true", default=None, help="open a window (default: where there is one)")
    window.add_argument("--headless", action="store_false", dest="show", help="open no window")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="VIDEO",
        help="annotated video to write, .mp4 or .avi; with several "
        "sources VIDEO-0.mp4 and so on, or with their number for {source}",
    )
    parser.add_argument("--json-lines", metavar="FILE", help="one JSON object per frame; - for stdout")
    parser.add_argument("--max-frames", type=int, metavar="N", help="stop after so many frames, of all sources")
    parser.add_argument(
        "--reconnect-seconds", type=float, default=30.0, metavar="S", help="keep trying a lost live source so long"
    )
    parser.set_defaults(run=_camera)


def _detector(args: argparse.Namespace) -> Detector:
    from gfl_edge.detector import Detector

    if args.model is None:
        log(f"no model named: taking {DESCRIPTION} ({PROPERTIES})")
    return Detector(args.model, args.backend, args.nms)


def _camera(args: argparse.Namespace) -> int:
    from gfl_edge.camera import run_camera

    with _detector(args) as detector:
        summary = run_camera(
            detector,
            args.source or 0,
            score=args.score,
            show=args.show,
            output=args.output,
            json_lines=args.json_lines,
            max_frames=args.max_frames,
            reconnect_seconds=args.reconnect_seconds,
        )
    # With the frames' JSON on stdout the summary goes where the status goes
    print(json.dumps(summary.to_dict(), indent=2), file=sys.stderr if args.json_lines == "-" else sys.stdout)
    return 0


def _add_detect(parser: argparse.ArgumentParser) -> None:
    _add_model_arguments(parser)
    _add_score_argument(parser)
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="picture files or folders of them")
    parser.add_argument(
        "-o", "--output-dir", type=Path, default=Path("detections"), metavar="DIR", help="where to write"
    )
    parser.set_defaults(run=_detect)


def _detect(args: argparse.Namespace) -> int:
    from gfl_edge.media.annotate import detect_images

    with _detector(args) as detector:
        summary = detect_images(detector, args.images, output_dir=args.output_dir, score=args.score)
    print(json.dumps(summary.to_dict(), indent=2))
    return 0


def _add_build(parser: argparse.ArgumentParser) -> None:
    build_command.add_arguments(parser)
    parser.set_defaults(run=build_command.run)


def _add_eval(parser: argparse.ArgumentParser) -> None:
    _add_model_arguments(parser)
    _add_data_arguments(parser)
    parser.add_argument("--annotations", type=Path, required=True, metavar="JSON", help="COCO instances file")
    parser.add_argument(
        "--evaluator",
        choices=EVALUATORS,
        default=EVALUATORS[0],
        help="what computes AP; the numbers are the same, faster-coco-eval takes less time (default: pycocotools)",
    )
    parser.set_defaults(run=_eval)


def _add_data_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of the images")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the result here as well")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N images")


def _eval(args: argparse.Namespace) -> int:
    from gfl_edge.evaluation.ap import evaluate

    with _detector(args) as detector:
        result = evaluate(detector, args.images, args.annotations, args.limit, evaluator=args.evaluator)
        _report({**result.to_dict(), **detector.describe()}, result.skipped, args)
    return 0


def _report(measured: dict[str, Any], skipped: tuple[str, ...], args: argparse.Namespace) -> None:
    """Write what was measured on ``--images``, and on what, to stdout and to ``--json``."""
    from gfl_edge import environment
    from gfl_edge.files import write_atomically

    annotations = args.annotations.name if args.annotations else None
    report = {**measured, "annotations": annotations, **environment.describe(["gfl-edge", *sys.argv[1:]])}
    text = json.dumps(report, indent=2)
    print(text)
    if args.json:
        write_atomically(args.json, f"{text}\n".encode())
    if skipped:
        log(f"{len(skipped)} unreadable images left out: {', '.join(skipped)}")


def _add_compare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("reference", type=Path, metavar="A", help="the reference, .onnx or .engine file")
    parser.add_argument("candidate", type=Path, metavar="B", help="what is compared with it, as its INT8 form")
    _add_backend_arguments(parser)
    _add_data_arguments(parser)
    parser.add_argument("--annotations", type=Path, metavar="JSON", help="COCO instances file (default: no AP)")
    parser.add_argument(
        "--score", type=float, default=0.3, metavar="S", help="match detections from this score on (default: 0.3)"
    )
    parser.set_defaults(run=_compare)


def _compare(args: argparse.Namespace) -> int:
    from gfl_edge.detector import Detector
    from gfl_edge.evaluation.compare import compare, table

    with (
        Detector(args.reference, args.backend, args.nms) as reference,
        Detector(args.candidate, args.backend, args.nms) as candidate,
    ):
        result = compare(reference, candidate, args.images, args.annotations, limit=args.limit, score=args.score)
    log(table(result))
    _report(result.to_dict(), result.skipped, args)
    return 0


def _add_bench(parser: argparse.ArgumentParser) -> None:
    command.add_arguments(parser)
    _add_backend_arguments(parser)
    parser.set_defaults(run=command.run)


def _add_models(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="as JSON, with addresses and digests")
    parser.set_defaults(run=_models)


def _models(args: argparse.Namespace) -> int:
    from gfl_edge.zoo import weights

    rows = weights.listing()
    if args.json:
        print(json.dumps(rows, indent=2))
    else:
        print(weights.table(rows))
        print(f"\n{DESCRIPTION} ({PROPERTIES}), is used where no --model is named")
    return 0


def _add_doctor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(run=_doctor)


def _doctor(args: argparse.Namespace) -> int:
    from gfl_edge.doctor import examine

    report = examine()
    print(json.dumps(report.to_dict(), indent=2) if args.json else report)
    return 0 if report.ways else FAILURE


def main(argv: list[str] | None = None) -> int:
    """Entry point of the console script; returns the exit status."""
    return run_command(build_parser(), lambda args: int(args.run(args)), argv)


if __name__ == "__main__":
    sys.exit(main())
