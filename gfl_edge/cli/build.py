"""The command ``gfl-edge build``, and what it shares with export/to_trt.py, which starts from a checkpoint."""

from __future__ import annotations

import argparse
from pathlib import Path

from gfl_edge.console import log
from gfl_edge.engine.build import BuildPlan, build_engine, plan
from gfl_edge.spec import read_spec
from gfl_edge.zoo.bundled import DESCRIPTION, bundled_model


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--model", type=Path, metavar="M", help=f".onnx file (default: {DESCRIPTION})")
    add_build_arguments(parser)
    parser.add_argument(
        "-o", "--output-dir", type=Path, default=Path(), metavar="DIR", help="where to write (default: here)"
    )


def add_build_arguments(parser: argparse.ArgumentParser) -> None:
    """What is built, of whatever model."""
    parser.add_argument(
        "--target",
        action="append",
        default=[],
        metavar="SM",
        help="GPU to build for: sm75, sm86, ... or current; repeat for several (default: this machine's, else sm75)",
    )
    parser.add_argument("--flavor", default="auto", choices=("auto", "tensorrt", "rtx"), help="which TensorRT")
    parser.add_argument("--max-batch", type=int, default=1, metavar="N", help="largest batch (default: 1)")


def plan_for(onnx: Path, args: argparse.Namespace) -> BuildPlan:
    """What :func:`add_build_arguments` asks for; see :func:`gfl_edge.engine.build.plan`."""
    targets = [target for word in args.target for target in word.split(",") if target]
    return plan(onnx, args.flavor, targets, args.max_batch)


def build(settled: BuildPlan, output_dir: Path) -> None:
    """Build an engine, its path on stdout; see :func:`gfl_edge.engine.build.build_engine`."""
    spec = read_spec(settled.onnx)
    int8 = f"INT8 ({spec.quantized_layers} convolutions) and " if spec.quantized_layers else ""
    log(f"building {spec.name} {int8}{spec.precision} for {', '.join(settled.targets)} with {settled.flavor}")
    engine, sidecar = build_engine(settled, output_dir)
    size_mb = engine.stat().st_size / 1e6
    log(f"built in {sidecar.build_seconds:.1f} s, {size_mb:.1f} MB, {sidecar.flavor} {sidecar.version}")
    print(engine)
    log(f"next, on a GPU of {', '.join(sidecar.targets)}: gfl-edge camera --model {engine}")


def run(args: argparse.Namespace) -> int:
    """Build the engine that the options ask for; the exit status."""
    build(plan_for(args.model or bundled_model(), args), args.output_dir)
    return 0
