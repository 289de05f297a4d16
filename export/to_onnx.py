"""Export a checkpoint to ONNX: python export/to_onnx.py --weights nanodet_m.ckpt -o artifacts/nanodet-m-320.onnx."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

if __package__ in (None, ""):  # run as a script: the checkout's packages are not installed
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from gfl_edge.commandline import run_command
from gfl_edge.errors import InputError
from gfl_edge.spec import ModelSpec, NmsPlace, Precision

DeformForm = Literal["gridsample", "deform"]  # see export.deform, which needs torch


@dataclass(frozen=True)
class ExportRequest:
    """What to export, and how."""

    weights: Path
    model: str | None = None  # a preset's name; None: recognised from the checkpoint
    input_hw: tuple[int, int] | None = None  # pixels; None: see export.models.describe_checkpoint
    class_names: tuple[str, ...] | None = None
    precision: Precision = "fp32"
    nms: NmsPlace = "graph"
    dcn: DeformForm = "gridsample"
    short_long: tuple[int, int] | None = None  # pixels; None: the size is fixed


def export_onnx(request: ExportRequest, output: Path) -> ModelSpec:
    """Export, compare with PyTorch, and write ``output`` only if both agree.

    Raises:
        InputError: unusable checkpoint, unknown model, input size that the network cannot take.
        ParityError: the graph does not compute what PyTorch computes.
    """
    # torch takes seconds to import and --help must work without it
    from export import graph, models, parity
    from gfl_edge.files import write_atomically
    from train.weights import load_detector

    preset = models.find_preset(request.model) if request.model else None
    detector = load_detector(request.weights, family=preset.family if preset else None)
    if preset:
        models.check_architecture(detector, preset, str(request.model))
    spec = models.describe_checkpoint(
        detector,
        request.weights,
        input_hw=request.input_hw or (preset.input_hw if preset else None),
        class_names=request.class_names,
        short_long=request.short_long,
    )
    spec = replace(spec, precision=request.precision, nms=request.nms)
    log(f"{request.weights}: {spec.name}, {spec.num_classes} classes; exporting {spec.precision}, NMS {spec.nms}")
    model = graph.build_graph(detector, spec, request.dcn)
    log(str(parity.compare(detector, model, spec)))
    write_atomically(output, model.SerializeToString())
    return spec


def log(message: str) -> None:
    """A line for the person at the terminal; results alone go to stdout."""
    print(message, file=sys.stderr, flush=True)


def read_class_names(text: str) -> tuple[str, ...]:
    """``a,b,c`` or a text file with one name per line."""
    path = Path(text)
    if path.is_file():
        names = [line.strip() for line in path.read_text().splitlines()]
    elif path.suffix == ".txt":
        raise InputError(f"{text}: no such file of class names. Give names as a,b,c or a text file with one per line")
    else:
        names = [name.strip() for name in text.split(",")]
    return tuple(name for name in names if name)


def add_weights_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that say what to export, shared with to_trt.py."""
    parser.add_argument("--weights", type=Path, metavar="FILE", help="PyTorch checkpoint (.ckpt, .pth)")
    parser.add_argument("--model", metavar="NAME", help="fail unless the checkpoint is this model; sets the input size")
    parser.add_argument("--input-size", type=int, nargs=2, metavar=("H", "W"), help="pixels, multiples of 32")
    parser.add_argument("--classes", metavar="A,B,C|FILE", help="class names, for detectors of your own")
    parser.add_argument(
        "--nms",
        choices=get_args(NmsPlace),
        default="graph",
        help="where NMS runs: in the graph (default), in TensorRT's plugin GflNms (plugin), or behind the model, which "
        "gives decoded boxes (none) or logits (raw)",
    )
    parser.add_argument(
        "--dcn",
        choices=("gridsample", "deform"),
        default="gridsample",
        help="deformable convolution in plain operators (default), or as DeformConv for ONNX Runtime",
    )
    parser.add_argument(
        "--dynamic",
        type=int,
        nargs=2,
        metavar=("SHORT", "LONG"),
        help="keep every frame's aspect ratio, with these sides at most, as in the paper (800 1333); GFL only",
    )
    parser.add_argument("--fp16", action="store_true", help="half precision between normalisation and decode")


def request_from(args: argparse.Namespace) -> ExportRequest:
    """The request that the options of :func:`add_weights_arguments` describe."""
    return ExportRequest(
        weights=args.weights,
        model=args.model,
        input_hw=tuple(args.input_size) if args.input_size else None,
        class_names=read_class_names(args.classes) if args.classes else None,
        precision="fp16" if args.fp16 else "fp32",
        nms=args.nms,
        dcn=args.dcn,
        short_long=tuple(args.dynamic) if args.dynamic else None,
    )


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="export/to_onnx.py", description=__doc__)
    add_weights_arguments(parser)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT.onnx", help="file to write")
    return run_command(parser, _run, argv)


def _run(args: argparse.Namespace) -> int:
    if args.weights is None:
        raise InputError("--weights is missing: give a PyTorch checkpoint (.ckpt, .pth)")
    spec = export_onnx(request_from(args), args.output)
    print(args.output)
    half = " --fp16" if spec.precision == "fp16" else ""
    build = f"python export/to_trt.py --onnx {args.output}{half}"
    detect = f"gfl-edge detect --model {args.output} IMAGE"
    log(f"next: {build} --flavor tensorrt" if spec.nms == "plugin" else f"next: {detect}, or {build}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
