"""The measured part of ``docs/batch.md``, from what was measured.

python docs/batch.py      after: python benchmarks/run.py batch
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a script: take the checkout's gfl_edge
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from gfl_edge.files import write_atomically

CHECKOUT = Path(__file__).resolve().parent.parent
RESULT = CHECKOUT / "benchmarks" / "results" / "batch.json"
PAGE = CHECKOUT / "docs" / "batch.md"
PART = re.compile(r"(?<=<!-- measured -->\n).*?(?=<!-- end -->)", re.DOTALL)
NOT_MEASURED = "The rates on one machine were not measured yet: `python benchmarks/run.py batch` does it.\n"
MEASURED = """\
## What one machine reached

The bundled detector on {cpu}, {cores} cores, files on a local disk; the rate from the difference of runs of {few} and
{many} images, medians of {rounds} ([batch.json](../benchmarks/results/batch.json), `python benchmarks/run.py batch`):

| way | images a second | lowest to highest | start, s | hours for a million |
|---|---|---|---|---|
{rows}

On one core an image takes {sum:.1f} ms: {stages}. {limit} takes {share:.0f} % of that.
Two workers do {scaling:.2f} times what one does. The cores are the limit here: what makes the model cheaper, as INT8
or a smaller input do, makes the run cheaper.
"""


def measured(result: dict[str, Any] | None) -> str:
    """The part; None: nothing was measured."""
    if result is None:
        return NOT_MEASURED
    stages = result["stages_ms"]
    limit = max(stages, key=stages.__getitem__)
    one, two = (result["ways"][f"Ray, {way}"]["images_per_second"] for way in ("1 worker", "2 workers"))
    return MEASURED.format(
        cpu=result["device"]["cpu"],
        cores=result["device"]["cores"],
        **result["images"],
        rows="\n".join(_row(way, found) for way, found in result["ways"].items()),
        sum=sum(stages.values()),
        stages=", ".join(f"{name} {ms:.2f}" for name, ms in stages.items()),
        limit=limit[0].upper() + limit[1:],
        share=100 * stages[limit] / sum(stages.values()),
        scaling=two / one,
    )


def page() -> str:
    """The content of docs/batch.md with the part of today's result."""
    result = json.loads(RESULT.read_text()) if RESULT.exists() else None
    return PART.sub(lambda _: measured(result), PAGE.read_text())


def _row(way: str, found: dict[str, float]) -> str:
    rate = found["images_per_second"]
    between = f"{found['lowest']:.1f} to {found['highest']:.1f}"
    return f"| {way} | {rate:.1f} | {between} | {found['start_seconds']:.1f} | {1e6 / rate / 3600:.1f} |"


if __name__ == "__main__":
    write_atomically(PAGE, page().encode())
