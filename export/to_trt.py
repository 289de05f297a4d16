"""Build a TensorRT engine: python export/to_trt.py --fp16. Without a GPU, TensorRT-RTX builds for the asked SMs."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

if __package__ in (None, ""):  # run as a script: the checkout's packages are not installed
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from export import default_model, to_onnx
from export.to_onnx import ExportRequest, log
from gfl_edge.build import build_engine, check_plugin_place, check_targets, plan
from gfl_edge.commandline import run_command
from gfl_edge.errors import InputError, PrecisionError
from gfl_edge.spec import PRECISION_OPTION, ModelSpec, read_spec


def choose_source(args: argparse.Namespace) -> Path:
    """The checkpoint or ONNX file to build from: the one named, else the newest artifact, else the default model."""
    named: Path | None = args.onnx or args.weights
    if named is not None:
        return named
    if args.model is None:
        newest = default_model.newest_artifact(to_onnx.asked_precision(args))
        if newest is not None:
            log(f"no model named: taking {newest}, the newest under {default_model.ARTIFACTS}/")
            return newest
    path = default_model.default_weights()
    log(f"no model named and none under {default_model.ARTIFACTS}/: taking {default_model.DEFAULT_NAME} from {path}")
    return path


def onnx_for(source: Path, args: argparse.Namespace) -> tuple[Path, ModelSpec]:
    """The ONNX file to build from, exported first where ``source`` is a checkpoint.

    Raises:
        PrecisionError: another precision was asked for than that of the ONNX file.
    """
    if source.suffix == ".onnx":
        spec = read_spec(source)
        asked = to_onnx.asked_precision(args)
        if asked not in ("fp32", spec.precision):
            option = PRECISION_OPTION[asked]
            raise PrecisionError(
                f"{source} is {spec.precision}: precision is part of an ONNX file and is never changed silently. "
                f"Export another with: python export/to_onnx.py --weights CHECKPOINT{option} -o MODEL.onnx"
            )
        return source, spec
    request: ExportRequest = replace(to_onnx.request_from(args), weights=source)
    folder = args.output_dir
    temporary = folder / ".exporting.onnx"
    spec = to_onnx.export_onnx(request, temporary)
    return temporary.replace(folder / f"{spec.file_stem}.onnx"), spec


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="export/to_trt.py", description=__doc__)
    to_onnx.add_weights_arguments(parser)
    parser.add_argument(
        "--onnx", type=Path, metavar="FILE", help="ONNX file of export/to_onnx.py, instead of --weights"
    )
    parser.add_argument(
        "--target",
        action="append",
        default=[],
        metavar="SM",
        help="GPU to build for: sm75, sm86, ... or current; repeat for several (default: this machine's, else sm75)",
    )
    parser.add_argument("--flavor", default="auto", choices=("auto", "tensorrt", "rtx"), help="which TensorRT")
    parser.add_argument("--max-batch", type=int, default=1, metavar="N", help="largest batch (default: 1)")
    parser.add_argument("-o", "--output-dir", type=Path, default=default_model.ARTIFACTS, metavar="DIR")
    return run_command(parser, _run, argv)


def _run(args: argparse.Namespace) -> int:
    if args.onnx and args.weights:
        raise InputError("--onnx and --weights both name a model: give one of them")
    source = choose_source(args)
    targets = [target for word in args.target for target in word.split(",") if target]
    settled = plan(source, args.flavor, targets, args.max_batch)  # before minutes of export, not after
    if source.suffix != ".onnx":
        check_plugin_place(args.nms, settled.flavor)
        check_targets(to_onnx.asked_precision(args), settled.targets)
    onnx, spec = onnx_for(source, args)
    log(f"building {spec.name} {spec.precision} for {', '.join(settled.targets)} with {settled.flavor}")
    engine, sidecar = build_engine(replace(settled, onnx=onnx), args.output_dir)
    size_mb = engine.stat().st_size / 1e6
    log(f"built in {sidecar.build_seconds:.1f} s, {size_mb:.1f} MB, {sidecar.flavor} {sidecar.version}")
    print(engine)
    log(f"next, on a GPU of {', '.join(sidecar.targets)}: gfl-edge camera --model {engine}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
