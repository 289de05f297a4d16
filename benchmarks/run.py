"""Measure: python benchmarks/run.py WHAT. Results go to benchmarks/results/ with device, versions and command."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a script: the checkout's packages are not installed
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.accuracy import ap, evaluation, int8, nms, person
from benchmarks.artifacts import engines, gfl_engines
from benchmarks.camera import camera
from benchmarks.kernels import kernels
from benchmarks.peers import peers
from benchmarks.speed import pipeline, report
from benchmarks.training import assigner, iteration, training
from gfl_edge import environment
from gfl_edge.console import run_command
from gfl_edge.files import write_atomically

RESULTS = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True)
class Measurement:
    """What can be measured.

    Attributes:
        name: of its result file, without suffix, below benchmarks/results.
        measure: takes a folder for files of its own; returns plain values.
        draw: a chart of the result, as SVG.
        write: puts other files of the result into the folder of its JSON.
    """

    name: str
    measure: Callable[[Path], dict[str, Any]]
    draw: Callable[[dict[str, Any]], bytes] | None = None
    write: Callable[[dict[str, Any], Path], None] | None = None


MEASUREMENTS = {
    "ap": Measurement("ap_mix397", ap.measure),
    "nms": Measurement("nms", nms.measure),
    "assigner": Measurement("assigner", assigner.measure),
    "camera": Measurement("camera", camera.measure, camera.draw),
    "engines": Measurement("engines", engines.measure),
    "evaluation": Measurement("evaluation", evaluation.measure),
    "gfl-engines": Measurement("gfl_engines", gfl_engines.measure),
    "int8": Measurement("int8", int8.measure),
    "iteration": Measurement("iteration", iteration.measure, iteration.draw),
    "kernels": Measurement("kernels", kernels.measure),
    "pipeline": Measurement("pipeline", pipeline.measure),
    "peers": Measurement("peers", peers.measure),
    "person": Measurement("person", person.measure),
    "report": Measurement("report/report", report.measure, write=report.write),
    "bccd": Measurement("bccd", training.measure_bccd, training.draw_bccd),
    "overfit": Measurement("overfit", training.measure_overfit),
    "ablation": Measurement("ablation", training.measure_ablation, training.draw_ablation),
}


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="benchmarks/run.py", description=__doc__)
    parser.add_argument("what", choices=MEASUREMENTS, help="what to measure")
    parser.add_argument(
        "--folder", type=Path, help="for files of its own, kept: a long measurement that was stopped goes on there"
    )
    return run_command(parser, _run, argv)


def _run(args: argparse.Namespace) -> int:
    measurement = MEASUREMENTS[args.what]
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        result = measurement.measure(folder)
    command = ["python", "benchmarks/run.py", args.what]
    text = json.dumps({**environment.describe(command), **result}, indent=1)
    path = RESULTS / f"{measurement.name}.json"
    write_atomically(path, f"{text}\n".encode())
    print(path)
    if measurement.draw is not None:
        write_atomically(path.with_suffix(".svg"), measurement.draw(json.loads(text)))
        print(path.with_suffix(".svg"))
    if measurement.write is not None:
        measurement.write(json.loads(text), path.parent)
    return 0


if __name__ == "__main__":
    sys.exit(main())
