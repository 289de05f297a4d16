"""Measure: python benchmarks/run.py WHAT. Results go to benchmarks/results/ with device, versions and command."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a script: the checkout's packages are not installed
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import ap, assigner, engines, gfl_engines, kernels, nms
from gfl_edge import environment
from gfl_edge.commandline import run_command
from gfl_edge.files import write_atomically

RESULTS = Path(__file__).resolve().parent / "results"

Measurement = Callable[[Path], dict[str, Any]]
MEASUREMENTS: dict[str, tuple[str, Measurement]] = {
    "ap": ("ap_mix397.json", ap.measure),
    "nms": ("nms.json", nms.measure),
    "assigner": ("assigner.json", assigner.measure),
    "engines": ("engines.json", engines.measure),
    "kernels": ("kernels.json", kernels.measure),
    "gfl-engines": ("gfl_engines.json", gfl_engines.measure),
}


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="benchmarks/run.py", description=__doc__)
    parser.add_argument("what", choices=MEASUREMENTS, help="what to measure")
    return run_command(parser, _run, argv)


def _run(args: argparse.Namespace) -> int:
    file_name, measure = MEASUREMENTS[args.what]
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder))
    command = ["python", "benchmarks/run.py", args.what]
    text = json.dumps({**environment.describe(command), **result}, indent=1)
    write_atomically(RESULTS / file_name, f"{text}\n".encode())
    print(RESULTS / file_name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
