"""The detectors that gfl_edge takes, side by side: ``docs/family.md``, from what was measured.

python docs/family.py      after: python benchmarks/run.py family
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
RESULT = CHECKOUT / "benchmarks" / "results" / "family.json"
PAGE = CHECKOUT / "docs" / "family.md"

TEXT = """\
# The family

Every kind of detector that gfl_edge takes, with networks of each: how exactly they are exported, and their engines of
TensorRT-RTX for sm75 in FP16 and INT8. `gfl-edge models` lists all published weights, [checkpoints](checkpoints.md)
says what is recognized, [ONNX files of others](adopt.md) what "adopted" means.

- AP is COCO AP in percent: what the authors state on val2017, and what gfl_edge measures in FP32 on 397 images of it.
  Where it was not measured, the weights are not here and random ones stand for them.
- Parity is the largest difference from PyTorch in float32, or of adopted models from the foreign file, on other images
  than those that were traced: of scores (0 to 1), in FP32 and in FP16.
- Engines hold kernels as source beside the weights. INT8 is calibrated on {calibration_images} images with no layer
  left float. Sizes are MB, times seconds of building on {cpu}, those at 800 x 1344
  beside other work.

| model | input | AP published | AP here | parity FP32 | parity FP16 | FP16, MB | FP16, s | INT8, MB | INT8, s |
|---|---|---|---|---|---|---|---|---|---|
{rows}

Measured by `benchmarks/run.py family`, commit {commit}: [family.json](../benchmarks/results/family.json).
"""


def page() -> str | None:
    """The content of docs/family.md; None where it was not measured."""
    if not RESULT.is_file():
        return None
    result = json.loads(RESULT.read_text())
    rows = "\n".join(f"| {' | '.join(cells(row))} |" for row in result["rows"])
    return TEXT.format(
        calibration_images=result["calibration_images"],
        cpu=result["device"]["cpu"],
        rows=rows,
        commit=result["commit"],
    )


def cells(row: dict[str, Any]) -> list[str]:
    """A row of the table."""
    height, width = row["input_hw"]
    aps = [
        f"{row[name]:.{digits}f}" if row[name] is not None else "-" for name, digits in (("published_ap", 1), ("ap", 2))
    ]
    parity = [f"{row['parity'][precision]['score']:.1e}" for precision in ("fp32", "fp16")]
    engines = []
    for precision in ("fp16", "int8"):
        engine = row["engines"][precision]
        engines += [f"{engine['engine_bytes'] / 1e6:.1f}", f"{engine['build_seconds']:.1f}"]
    return [row["model"], f"{height} x {width}", *aps, *parity, *engines]


def main() -> int:
    """Write the page."""
    content = page()
    if content is None:
        print(f"{RESULT} is missing. Measure it with: python benchmarks/run.py family", file=sys.stderr)
        return 1
    write_atomically(PAGE, content.encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
