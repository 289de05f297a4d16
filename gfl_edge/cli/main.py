"""The command line: ``gfl-edge COMMAND``, of those in :data:`COMMANDS`."""

from __future__ import annotations

import argparse
import sys
from typing import Protocol

from gfl_edge._version import __version__
from gfl_edge.cli import (
    adopt,
    batch,
    bench,
    build,
    camera,
    compare,
    deepstream,
    detect,
    doctor,
    evaluate,
    models,
    triton,
)
from gfl_edge.console import USAGE, CommandParser, run_command
from gfl_edge.terminal.streams import stderr


class Command(Protocol):
    """What the module of a command has."""

    def add(self, parser: argparse.ArgumentParser) -> None:
        """Add the options."""

    def run(self, args: argparse.Namespace) -> int:
        """Do it; the exit status."""


COMMANDS: tuple[tuple[str, Command, str], ...] = (
    ("camera", camera, "run on a camera, video, stream or folder of images"),
    ("detect", detect, "write annotated copies of images"),
    ("batch", batch, "detections of millions of images as a Parquet file, on this machine or on a cluster of Ray"),
    ("adopt", adopt, "a model of somebody else's ONNX file of a NanoDet, PicoDet or GFL detector"),
    ("build", build, "a TensorRT engine of an ONNX file"),
    ("eval", evaluate, "COCO AP through the pipeline that runs on the device"),
    ("compare", compare, "two models side by side: AP, size, latency, agreement"),
    ("bench", bench, "speed, stages, memory, energy and AP, as a report"),
    ("deepstream", deepstream, "a folder that DeepStream's nvinfer runs: model, configuration, labels, parser"),
    ("triton", triton, "a model in a repository of NVIDIA's Triton Inference Server"),
    ("models", models, "the published weights that are known by name"),
    ("doctor", doctor, "what this machine has and lacks, and the commands that add it"),
)


def build_parser() -> argparse.ArgumentParser:
    """The parser of every command; needs no optional package."""
    parser = CommandParser(
        prog="gfl-edge",
        description="Run and measure GFL detectors.",
        epilog="gfl-edge COMMAND --help says more of each. Without a model named, the bundled detector runs: try "
        "gfl-edge camera, or gfl-edge camera --source VIDEO",
    )
    parser.add_argument("--version", action="version", version=f"gfl-edge {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, title="commands", metavar="COMMAND")
    for name, command, purpose in COMMANDS:
        subparser = commands.add_parser(name, help=purpose)
        command.add(subparser)
        subparser.set_defaults(run=command.run)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Entry point of the console script; returns the exit status."""
    parser, words = build_parser(), sys.argv[1:] if argv is None else argv
    if not words:
        parser.print_help(stderr())
        parser.exit(USAGE)
    return run_command(parser, lambda args: int(args.run(args)), words)


if __name__ == "__main__":
    sys.exit(main())
