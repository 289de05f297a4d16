"""All that a lent GPU is asked, in 25 minutes: python benchmarks/gpu.py -o DIR.

Each stage is a process with a limit of time, and a line of DIR/stages.jsonl that is written when it ends, so that one
that fails or hangs stops no other and nothing that was measured is lost. DIR/gpu.json has them all, as a result.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a script: the checkout's packages are not installed
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import fingerprints
from gfl_edge import environment
from gfl_edge.console import run_command
from gfl_edge.files import check_output, write_atomically
from gfl_edge.parsing.json_text import json_text

logger = logging.getLogger("gfl_edge.benchmarks.gpu")

CHECKOUT = Path(__file__).resolve().parent.parent
DONE = "done"
SUBJECTS = ("kernels of NMS", "kernel of resizing")  # of the fingerprints that the results carry


@dataclass(frozen=True)
class Stage:
    """A module of ``benchmarks/lent``, and how long it may take."""

    name: str
    seconds: int


# The most valuable first; together 25 minutes at most
STAGES = (
    Stage("machine", 60),
    Stage("results", 150),
    Stage("replay", 90),
    Stage("times", 300),
    Stage("networks", 150),
    Stage("accuracy", 90),
    Stage("sanitizer", 360),
    Stage("engines", 300),
)


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status, 1 where a stage failed."""
    parser = argparse.ArgumentParser(prog="benchmarks/gpu.py", description=__doc__)
    parser.add_argument("-o", "--output-dir", type=Path, required=True, metavar="DIR", help="takes stages.jsonl")
    parser.add_argument("--dry-run", action="store_true", help="little work, to see that every stage runs")
    parser.add_argument("--only", nargs="+", choices=[stage.name for stage in STAGES], help="these stages")
    return run_command(parser, _run, argv)


def _run(args: argparse.Namespace) -> int:
    lines, whole = args.output_dir / "stages.jsonl", args.output_dir / "gpu.json"
    check_output(lines)
    check_output(whole)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    wanted = [stage for stage in STAGES if args.only is None or stage.name in args.only]
    described = environment.describe(["python", "benchmarks/gpu.py", *sys.argv[1:]])
    described |= {"commit": fingerprints.commit(), "fingerprint": fingerprints.take(SUBJECTS)}
    rows = [_stage(stage, lines, args.dry_run) for stage in wanted]
    stages = {row.pop("stage"): row for row in rows}
    write_atomically(whole, f"{json_text({**described, 'stages': stages}, indent=1)}\n".encode())
    return int(any(row["status"] != DONE for row in rows))


def _stage(stage: Stage, lines: Path, small: bool) -> dict[str, Any]:
    """Its row."""
    result = (lines.parent / f"{stage.name}.json").resolve()
    so_far = result.with_suffix(".jsonl")  # of a stage that writes its rows one by one
    for old in (result, so_far):
        old.unlink(missing_ok=True)
    words = [sys.executable, "-m", "benchmarks.lent.child", stage.name, str(result), *(["--small"] if small else [])]
    start = time.monotonic()
    status, said = _process(words, stage.seconds)
    row: dict[str, Any] = {"stage": stage.name, "status": status, "seconds": round(time.monotonic() - start, 1)}
    if status == DONE:
        row["result"] = json.loads(result.read_text())
    else:
        row["said"] = said
        if so_far.is_file():
            row["so_far"] = [json.loads(line) for line in so_far.read_text().split("\n")[:-1]]
    with lines.open("a") as file:
        file.write(f"{json_text(row)}\n")
    logger.info("%s: %s after %s s", stage.name, status, row["seconds"])
    return row


def _process(words: Sequence[str], seconds: int) -> tuple[str, list[str]]:
    """Whether it came to its end, and the last lines of what it said."""
    try:
        done = subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired as error:
        said = error.stderr or b""
        return f"stopped after {seconds} s", said.decode(errors="replace").splitlines()[-20:]
    return (DONE if done.returncode == 0 else "failed"), (done.stdout + done.stderr).splitlines()[-20:]


if __name__ == "__main__":
    sys.exit(main())
