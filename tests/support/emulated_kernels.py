"""The emulated CUDA kernels for tests: built once, skipped with a reason where there is no compiler."""

from __future__ import annotations

import functools
import os
import shutil
from pathlib import Path

from benchmarks.kernels.library import EmulatedLibrary, build_emulation, cached_emulation
from tests.support.required import skip_unless_required

SANITIZE = ("-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")
COVERAGE = ("-O0", "--coverage")


@functools.cache
def library() -> EmulatedLibrary:
    """The library that the environment asks for.

    GFL_EDGE_EMULATION=sanitize: with AddressSanitizer, which must be preloaded; coverage:FOLDER: gcov's files go there.
    """
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        skip_unless_required("there is no C++ compiler for the emulation of the kernels; install g++ or set CXX")
    kind, _, folder = os.environ.get("GFL_EDGE_EMULATION", "").partition(":")
    if kind == "coverage":
        return EmulatedLibrary(build_emulation(Path(folder), COVERAGE))
    return EmulatedLibrary(cached_emulation(SANITIZE if kind == "sanitize" else ("-O2",)))
