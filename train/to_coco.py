"""Annotations of a training run as a COCO file, for train/evaluate.py and gfl-edge eval.

python train/to_coco.py CONFIG.toml --set 'data.val.image_list="test.txt"' -o test.json
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: the checkout's packages are not installed
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from gfl_edge.console import CommandParser, log, run_command, say_path
from gfl_edge.errors import InputError
from gfl_edge.parsing.json_text import json_text
from gfl_edge.terminal.printable import word
from train.arguments import add_config_arguments, config_of


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = CommandParser(
        prog="train/to_coco.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_config_arguments(parser)
    parser.add_argument("--part", choices=("train", "val"), default="val", help="which set (default: val)")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT.json", help="file to write")
    return run_command(parser, _run, argv)


def _run(args: argparse.Namespace) -> int:
    # torch takes seconds to import and --help must work without it
    from gfl_edge.files import check_output, write_atomically
    from train.data.load import load_data

    config = config_of(args)
    check_output(args.output)
    data = load_data(config.data)
    annotations = data.train if args.part == "train" else data.val
    if annotations is None:
        raise InputError(f"{args.config}: there is no data.val. Add it, or take --part train")
    write_atomically(args.output, json_text(annotations.to_coco()).encode())
    say_path(args.output)
    folder, output = word(annotations.image_folder), word(args.output)
    log(f"{len(annotations)} images; next: gfl-edge eval --model MODEL --images {folder} --annotations {output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
