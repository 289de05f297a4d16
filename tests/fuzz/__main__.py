"""Fuzz the readers of files: ``python -m tests.fuzz --reader coco --executions 100000 --seed 1``."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import fingerprints
from gfl_edge import environment
from gfl_edge.files import write_atomically
from tests.fuzz.limits import EXECUTIONS, SEED
from tests.fuzz.mutate import input_of
from tests.fuzz.parent import fuzz
from tests.fuzz.reader import Reader
from tests.fuzz.registry import all_readers


def main(argv: list[str] | None = None) -> int:
    """Returns 1 where a reader failed."""
    readers = all_readers()
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Try many damaged files on the readers.")
    parser.add_argument("--reader", action="append", choices=sorted(readers), help="default: all of them")
    parser.add_argument("--executions", type=int, default=EXECUTIONS, help="of each reader")
    parser.add_argument("--seed", type=int, default=SEED, help="of the random numbers")
    parser.add_argument("--number", type=int, help="only this input, in this process, so that a debugger can look")
    parser.add_argument("-o", "--output", type=Path, help="folder for the inputs that fail; default: a temporary one")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was counted, with machine and versions")
    options = parser.parse_args(argv)
    folder = options.output or Path(tempfile.mkdtemp(prefix="gfl_edge-fuzz-"))
    chosen = [readers[name] for name in options.reader or sorted(readers)]
    if options.number is not None:
        return _once(chosen[0], options.seed, options.number, folder)
    rows = []
    for reader in chosen:
        start = time.monotonic()
        outcome = fuzz(reader, options.executions, options.seed, folder / reader.name)
        print(outcome, flush=True)
        counts = {"executions": outcome.executions, "read": outcome.read, "refused": outcome.refused}
        seconds = round(time.monotonic() - start, 1)
        rows.append({"reader": reader.name, **counts, "failed": len(outcome.failures), "seconds": seconds})
    if options.json is not None:
        words = ["python", "-m", "tests.fuzz", "--executions", str(options.executions), "--seed", str(options.seed)]
        result = {**environment.describe(words), "seed": options.seed, "rows": rows, "commit": fingerprints.commit()}
        write_atomically(options.json, (json.dumps(result, indent=1) + "\n").encode())
    return 1 if any(row["failed"] for row in rows) else 0


def _once(reader: Reader, seed: int, number: int, folder: Path) -> int:
    """Read one input, with everything that is logged and raised on the terminal."""
    logging.basicConfig(level=logging.INFO)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"input{reader.suffix}"
    path.write_bytes(input_of(reader, reader.seed_contents(), seed, number))
    print(path)
    print(reader.read(path))
    return 0


if __name__ == "__main__":
    sys.exit(main())
