"""What was done to gfl_edge to see what it holds: ``docs/reliability.md``, from what was counted.

python docs/reliability.py      after: make fuzz mutants coverage; python benchmarks/run.py faults
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a script: take the checkout's gfl_edge
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from gfl_edge.files import write_atomically

CHECKOUT = Path(__file__).resolve().parent.parent
RESULTS = CHECKOUT / "benchmarks" / "results"
PAGE = CHECKOUT / "docs" / "reliability.md"

INTRODUCTION = """\
# What was tried, and what holds

A device in the field meets cut files, full disks, cameras that come and go, and now and then a file that somebody
made to do harm. What follows was tried, is counted, and stays in the tests: whoever adds a reader adds its driver,
whoever adds a command its faults. What is safe to load, and what is not, says [SECURITY.md](../SECURITY.md).

## Damaged files

Every reader of files gets files that are damaged at random: bits, bytes, lines, numbers, words, JSON values and
fields of Protobuf, made from good ones, in a process with limits. It has to return a value or raise a
`GflEdgeError`, whatever comes: no other exception, no signal, at most 5 s of computing and 1 GB more memory.
`make fuzz` measures this table, `make test` and `make slow` try other inputs.
`python -m tests.fuzz --reader NAME --seed S` tries your own.

{fuzz}

What failed at first and holds now:

- A list of images that names `/dev/zero` filled the memory, and a pipe was waited for. What is no regular file is
  refused.
- An infinite size in a VOC file, half a character in the name of a COCO image, and a path of a thousand folders
  were tracebacks.
- Messages were as long as the file wanted. They have an end, and say at it what to do.
- ONNX files: a loop of 10^18 rounds, functions that call each other, an opset of 2^31 and nested conditions took
  for ever; an index beyond its tensor and the least integer divided by -1 ended the process by a signal, in
  OpenVINO, ONNX Runtime or `onnx`. They are refused before a library sees them (`gfl_edge/ops/onnx_limits.py`).
  Outputs of another type or shape than described were used, or were an IndexError; they are compared with the
  description (`gfl_edge/ops/onnx_ports.py`).
"""
FAULTS = """\
## Faults

{table}
"""
# What the modules of benchmarks/faults try
TRIED = {
    "kills": "processes killed at any moment",
    "disks": "disks that are full or read-only",
    "cameras": "cameras that fail",
    "loads": "many writers and readers at once",
    "places": "pipes, devices and holes in place of files",
    "limits": "little memory, few open files, no home",
    "changes": "folders, disks and files that go or change under a command",
}
MUTANTS = """\
## What the tests notice

Where a fault would cost AP without a word, faults were put in on purpose: `make mutants` changes the code in one small
place at a time (a number, an operator, an argument, a limit), runs the fast tests of that module, and counts how often
one of them fails. What none noticed at first became a test, or was read and found to be harmless
(`benchmarks/mutants/accepted.toml`).

{table}
"""
COVERAGE = """\
## What the tests run

Lines and branches that the tests of `make test` run, processes that they start included; `make coverage` measures it.
What only a GPU can run is not among them.

{table}
"""


def fuzz_table(result: dict[str, Any]) -> str:
    """A row for each reader."""
    lines = ["| reader | files tried | read | refused in a sentence | failed |", "|---|---|---|---|---|"]
    for row in result["rows"]:
        cells = (row["reader"], *(f"{row[key]:,}" for key in ("executions", "read", "refused", "failed")))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def faults_table(result: dict[str, Any]) -> str:
    """What was tried, and a row for each kind of fault."""
    modules = dict.fromkeys(row["module"] for row in result["rows"])
    lines = [
        "`python benchmarks/run.py faults` does this to the commands and measures the table; with `--only` and one of",
        "these words it repeats one part:",
        "",
        *(f"- `{module}`: {TRIED[module]}" for module in modules),
        "",
    ]
    lines += ["| kind of fault | tried | held | failed |", "|---|---|---|---|"]
    for row in result["rows"]:
        lines.append(f"| {row['module']}: {row['kind']} | {row['tried']:,} | {row['held']:,} | {row['failed']:,} |")
    return "\n".join(lines)


def mutants_table(result: dict[str, Any]) -> str:
    """A row for each module."""
    lines = ["| module | changes tried | noticed | harmless, with a reason each |", "|---|---|---|---|"]
    for row in result["modules"]:
        noticed = f"{row['killed'] + row['timed_out']:,} ({100 * row['killed_share']:.1f} %)"
        lines.append(f"| `{row['module']}` | {row['mutants']:,} | {noticed} | {len(row['equivalent']):,} |")
    return "\n".join(lines)


def coverage_table(result: dict[str, Any]) -> str:
    """A row for each package, and one of all."""
    lines = ["| package | lines | run, % | branches | run, % |", "|---|---|---|---|---|"]
    for row in result["packages"]:
        counts = (f"{row['num_statements']:,}", _share(row["lines_percent"]), f"{row['num_branches']:,}")
        lines.append(f"| {' | '.join((row['package'], *counts, _share(row['branches_percent'])))} |")
    return "\n".join(lines)


def _share(percent: float | None) -> str:
    return "none" if percent is None else f"{percent:.1f}"


def page() -> str:
    """The content of docs/reliability.md; a table that was not measured is left out."""
    names = ("fuzz", "faults", "mutants", "coverage")
    found = {name: json.loads(path.read_text()) for name in names if (path := RESULTS / f"{name}.json").exists()}
    fuzz = fuzz_table(found["fuzz"]) if "fuzz" in found else "It was not measured."
    sections = [INTRODUCTION.format(fuzz=fuzz)]
    for name, text, table in (
        ("faults", FAULTS, faults_table),
        ("mutants", MUTANTS, mutants_table),
        ("coverage", COVERAGE, coverage_table),
    ):
        if name in found:
            sections.append(text.format(table=table(found[name])))
    return "\n".join(section.rstrip() + "\n" for section in sections)


if __name__ == "__main__":
    write_atomically(PAGE, page().encode())
