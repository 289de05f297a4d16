"""Fuzz the readers of files: ``python -m tests.fuzz --reader coco --executions 100000 --seed 1``."""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from pathlib import Path

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
    options = parser.parse_args(argv)
    folder = options.output or Path(tempfile.mkdtemp(prefix="gfl_edge-fuzz-"))
    chosen = [readers[name] for name in options.reader or sorted(readers)]
    if options.number is not None:
        return _once(chosen[0], options.seed, options.number, folder)
    failed = 0
    for reader in chosen:
        outcome = fuzz(reader, options.executions, options.seed, folder / reader.name)
        print(outcome, flush=True)
        failed += bool(outcome.failures)
    return 1 if failed else 0


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
