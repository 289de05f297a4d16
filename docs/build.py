"""The API reference as HTML, from the docstrings of the package: python docs/build.py -o site."""

from __future__ import annotations

import argparse
import pkgutil
import re
import shutil
import sys
import warnings
from pathlib import Path

if __package__ in (None, ""):  # run as a script: take the checkout's gfl_edge
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import gfl_edge
from gfl_edge import optional
from gfl_edge.console import log, run_command

# Annotations that pdoc cannot resolve and shows as their text: TensorRT's where it is not installed, tqdm[Any], which
# only its stubs know, and those of the constructor of a NamedTuple, which Python makes in a namespace without the names
# of the module
UNRESOLVED = re.compile(r"\btrt\b|\btqdm\b|ForwardRef\(.*\.__init__\.")


def public_modules() -> list[str]:
    """The modules of the package, which bring those below them, except the one that ``python -m gfl_edge`` runs."""
    found = pkgutil.iter_modules(gfl_edge.__path__, "gfl_edge.")
    return ["gfl_edge", *sorted(module.name for module in found if not module.name.endswith("__main__"))]


def build(folder: Path) -> list[str]:
    """Write the reference into ``folder``, which is emptied first.

    Returns:
        pdoc's warnings, such as annotations that name nothing.

    Raises:
        MissingDependencyError: pdoc is not installed.
    """
    pdoc = optional.load("pdoc")
    for name in gfl_edge.__all__:  # the lazy ones, which pdoc does not ask for
        setattr(gfl_edge, name, getattr(gfl_edge, name))
    pdoc.render.configure(docformat="google", footer_text=f"gfl_edge {gfl_edge.__version__}")
    shutil.rmtree(folder, ignore_errors=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pdoc.pdoc(*public_modules(), output_directory=folder)
    return [str(warning.message) for warning in caught if not UNRESOLVED.search(str(warning.message))]


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="docs/build.py", description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=Path("site"), metavar="DIR", help="folder (default: site)")
    return run_command(parser, _run, argv)


def _run(args: argparse.Namespace) -> int:
    problems = build(args.output)
    for problem in problems:
        log(f"warning: {problem}")
    print(args.output / "index.html")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
