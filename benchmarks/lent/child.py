"""One stage, in this process: python -m benchmarks.lent.child STAGE RESULT.json [--small]."""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
from pathlib import Path

from gfl_edge.parsing.json_text import json_text


def main(argv: list[str] | None = None) -> int:
    """Write what the stage found; the exit status is 0 where it came to its end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage")
    parser.add_argument("result", type=Path)
    parser.add_argument("--small", action="store_true", help="little work, for a dry run")
    args = parser.parse_args(argv)
    stage = importlib.import_module(f"benchmarks.lent.{args.stage}")
    with tempfile.TemporaryDirectory() as folder:
        found = stage.measure(Path(folder) if args.small else args.result.parent, args.small)
    args.result.write_text(json_text(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
