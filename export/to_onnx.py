"""Export a checkpoint to ONNX: python export/to_onnx.py --weights nanodet_m.ckpt -o artifacts/nanodet-m-320.onnx."""

from __future__ import annotations

import argparse
import itertools
import logging
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if __package__ in (None, ""):  # run as a script: the checkout's packages are not installed
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from export.arguments import ExportRequest, add_weights_arguments, options_from, precision_from
from gfl_edge.console import CommandParser, log, run_command, say_path
from gfl_edge.errors import InputError
from gfl_edge.files import check_output, size_bytes, write_atomically
from gfl_edge.ops.tolerances import Parity
from gfl_edge.spec import PRECISION_OPTION, ModelSpec, nms_problem, spec_of
from gfl_edge.terminal.printable import word
from train.weights import find

if TYPE_CHECKING:
    from onnx import ModelProto

    from export.half import HalfPlan
    from train.models.detector import Detector

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Exported:
    """A detector as an ONNX model that computes what PyTorch computes.

    Attributes:
        model: carries ``spec`` in its metadata.
        spec: its description.
        parity: how far it is from PyTorch.
    """

    model: ModelProto
    spec: ModelSpec
    parity: Parity

    def write(self, path: Path) -> None:
        """Write the ONNX file."""
        write_atomically(path, self.model.SerializeToString())


def export_onnx(request: ExportRequest, output: Path) -> Exported:
    """Export, compare with PyTorch, and write ``output`` only if both agree; see :func:`export_model`."""
    check_output(output, size_bytes(request.weights))
    exported = export_model(request)
    exported.write(output)
    return exported


def export_model(request: ExportRequest) -> Exported:
    """Export and compare with PyTorch.

    Raises:
        InputError: unusable checkpoint, unknown model, input size that the network cannot take.
        ParityError: the graph does not compute what PyTorch computes.
        PrecisionError: the network does not fit into FP16.
        SourceError: no images at ``check_images``.
    """
    if request.check_images is not None and request.precision != "fp16":
        raise InputError(
            f"--check-images says on what the range of FP16 is checked, not of {request.precision}: add --fp16"
        )
    # torch takes seconds to import and --help must work without it
    from export import graph, parity
    from train import describe

    preset = describe.find_preset(request.model) if request.model else None
    wanted = describe.Wanted(
        family=preset.family if preset else None,
        config=request.config,
        ema=request.ema,
        input_hw=request.input_hw or (preset.input_hw if preset else None),
        class_names=request.class_names,
        short_long=request.short_long,
    )
    detector, spec = describe.load_described(request.weights, wanted)
    if preset:
        describe.check_architecture(detector, preset, str(request.model))
    if request.uncertainty:
        spec = describe.with_sigmas(detector, spec, str(request.weights))
    if problem := nms_problem(request.nms, spec.reg_max):
        raise InputError(problem)
    spec = replace(spec, precision=request.precision, nms=request.nms)
    source = f"{request.weights}: {spec.name}, {spec.num_classes} classes"
    sigma = ", standard deviations of edges" if spec.edge_sigma else ""
    logger.info("%s; exporting %s, NMS %s%s", source, spec.precision, spec.nms, sigma)
    plan = _plan_half(detector, spec, request.check_images) if spec.precision == "fp16" else None
    model = graph.build_graph(detector, spec, request.dcn, plan)
    found = parity.compare(detector, model, spec)
    logger.info("%s", found)
    if spec.precision == "bf16":
        score, edge = parity.rounding(detector, spec)
        also = "bf16: with activations rounded, too, PyTorch differs by"
        logger.info("%s score %.2e, box edge %.2e strides", also, score, edge)
    return Exported(model, spec_of(model, str(request.weights)), found)  # with what stayed float32


def _plan_half(detector: Detector, spec: ModelSpec, check_images: Path | None) -> HalfPlan:
    """What stays float32 in FP16, by the magnitudes on the images of the comparison and those of ``check_images``."""
    from export import graph, half, magnitudes, parity

    reference = graph.ExportedDetector(detector, replace(spec, precision="fp32", nms="none")).eval()
    own = magnitudes.read_images(check_images, spec) if check_images else ()
    found = magnitudes.measure(reference, reference.body, itertools.chain([parity.compared_images(spec)], own))
    plan = half.make_plan(found, spec)
    logger.info("%s", plan)
    return plan


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = CommandParser(prog="export/to_onnx.py", description=__doc__)
    add_weights_arguments(parser)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT.onnx", help="file to write")
    return run_command(parser, _run, argv)


def _run(args: argparse.Namespace) -> int:
    if args.weights is None:
        raise InputError("--weights is missing: give a PyTorch checkpoint (.ckpt, .pth) or a name of: gfl-edge models")
    if args.output.suffix != ".onnx":  # by which every command knows a model
        raise InputError(f"-o {args.output}: expected a name that ends in .onnx")
    weights = find.find_weights(args.weights, args.unchecked)
    spec = export_onnx(options_from(args).request(weights, precision_from(args)), args.output).spec
    say_path(args.output)
    build = f"python export/to_trt.py --onnx {word(args.output)}{PRECISION_OPTION[spec.precision]}"
    detect = f"gfl-edge detect --model {word(args.output)} IMAGE"
    log(f"next: {build} --flavor tensorrt" if spec.nms == "plugin" else f"next: {detect}, or {build}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
