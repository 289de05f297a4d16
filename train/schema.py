"""The JSON schemas by which editors check and complete train/configs: python train/schema.py writes them anew."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a script: the checkout's packages are not installed
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from gfl_edge.console import run_command

CONFIGS = Path(__file__).resolve().parent / "configs"


def schemas() -> dict[Path, dict[str, Any]]:
    """The schemas of training runs and of published models, by their files."""
    from gfl_edge.parsing.validation import adapter
    from train.config import Config
    from train.models.published import ModelFile

    run = adapter(Config).json_schema()
    for name in ("NanoDetConfig", "GFLConfig"):
        del run["$defs"][name]["properties"]["num_classes"]  # the data's
    return {CONFIGS / "schema.json": run, CONFIGS / "models" / "schema.json": adapter(ModelFile).json_schema()}


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    return run_command(argparse.ArgumentParser(prog="train/schema.py", description=__doc__), _run, argv)


def _run(_args: argparse.Namespace) -> int:
    from gfl_edge.files import write_atomically

    for path, schema in schemas().items():
        write_atomically(path, f"{json.dumps(schema, indent=2)}\n".encode())
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
