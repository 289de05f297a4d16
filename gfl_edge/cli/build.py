"""The command ``gfl-edge build``, and what it shares with export/to_trt.py, which starts from a checkpoint."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from gfl_edge.console import log, say_path
from gfl_edge.engine.build import build_engine, plan
from gfl_edge.engine.options import MAX_WORKSPACE_MIB, BuildNms, BuildOptions
from gfl_edge.engine.sidecar import Sidecar
from gfl_edge.parsing.numbers import MAX_BATCH, whole_argument
from gfl_edge.terminal.printable import word
from gfl_edge.zoo.bundled import DESCRIPTION, bundled_model


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--model", type=Path, metavar="M", help=f".onnx file (default: {DESCRIPTION})")
    add_build_arguments(parser)
    parser.add_argument(
        "--nms",
        default="auto",
        choices=get_args(BuildNms),
        help="graph: keep NMS in the engine, where auto leaves it to faster kernels after it",
    )
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
    parser.add_argument(
        "--max-batch", type=whole_argument(1, MAX_BATCH), default=1, metavar="N", help="largest batch (default: 1)"
    )
    parser.add_argument(
        "--no-tf32", action="store_true", help="full FP32 in convolutions of FP32 files, where sm80 and newer take TF32"
    )
    parser.add_argument(
        "--workspace",
        type=whole_argument(1, MAX_WORKSPACE_MIB),
        metavar="MIB",
        help="most memory that a layer may take for itself, as on boards whose GPU shares that of the system",
    )
    parser.add_argument(
        "--timing-cache", type=Path, metavar="FILE", help="keep what full TensorRT measures, for faster builds"
    )


def options_from(args: argparse.Namespace) -> BuildOptions:
    """How to build, of the options of :func:`add_build_arguments` and ``--nms``."""
    return BuildOptions("graph" if args.nms == "graph" else "auto", not args.no_tf32, args.workspace)


def targets_from(args: argparse.Namespace) -> tuple[str, ...]:
    """The GPUs that :func:`add_build_arguments` names."""
    return tuple(target for word in args.target for target in word.split(",") if target)


def announce(engine: Path, sidecar: Sidecar) -> None:
    """The engine's path on stdout, what it took and what comes next on stderr."""
    size_mb = engine.stat().st_size / 1e6
    log(f"built in {sidecar.build_seconds:.1f} s, {size_mb:.1f} MB, {sidecar.flavor} {sidecar.version}")
    if sidecar.int8_convolutions:
        log(f"{sidecar.int8_convolutions} of {sidecar.convolutions} convolutions are INT8")
    say_path(engine)
    log(f"next, on a GPU of {', '.join(sidecar.targets)}: gfl-edge camera --model {word(engine)}")


def run(args: argparse.Namespace) -> int:
    """Build the engine that the options ask for; the exit status."""
    how = {"options": options_from(args), "timing_cache": args.timing_cache}
    settled = plan(args.model or bundled_model(), args.flavor, targets_from(args), args.max_batch, **how)
    announce(*build_engine(settled, args.output_dir))
    return 0
