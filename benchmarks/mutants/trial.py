"""Tests with another source in place of a module's own, each time in a fork of a process that has done slow imports."""

from __future__ import annotations

import gc
import importlib
import importlib.util
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Literal

Outcome = Literal["survived", "killed", "timed out"]

CHECKOUT = Path(__file__).resolve().parents[2]
OWN = ("gfl_edge", "calib", "train", "export", "benchmarks", "tests")  # imported anew by every fork
# torch.testing.assert_close imports the second, which takes as long as everything else
SLOW_IMPORTS = ("torch", "torch.distributed.tensor", "cv2", "onnx", "hypothesis", "numpy.testing", "pydantic", "pytest")
MAX_MEMORY_GROWTH_BYTES = 4 << 30
NO_TESTS = 5  # pytest's exit status


def prepare() -> None:
    """Import what takes long, so that forks find it done, and share its memory: garbage collection would copy it."""
    for name in SLOW_IMPORTS:
        importlib.import_module(name)
    gc.disable()
    gc.freeze()


def run(module: str, source: str, tests: Sequence[str], limit_s: float) -> Outcome:
    """Run test files on a module whose source is ``source``, up to the first failure.

    Args:
        module: its dotted name.
        source: survives if all tests pass; a crash, an endless loop and a lot of memory count as noticed.
        tests: pytest's arguments.
        limit_s: seconds until it is ended.
    """
    child = os.fork()
    if child == 0:
        _run_and_exit(module, source, tests)
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            if code == NO_TESTS:
                raise RuntimeError(f"{', '.join(tests)}: pytest found no tests")
            return "killed" if code else "survived"
        time.sleep(0.005)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "timed out"


def _run_and_exit(module: str, source: str, tests: Sequence[str]) -> None:
    """In the fork. It never returns into the code of the parent, whatever happens."""
    code = 1
    try:
        os.setsid()  # what tests start ends with it
        for descriptor in range(3):
            os.dup2(os.open(os.devnull, os.O_RDWR), descriptor)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MAX_MEMORY_GROWTH_BYTES,) * 2)
        for name in [name for name in sys.modules if name.partition(".")[0] in OWN]:
            del sys.modules[name]
        sys.meta_path.insert(0, _Replacing(module, source))
        os.chdir(CHECKOUT)
        code = _pytest(tests)
    finally:
        os._exit(code)


def _pytest(tests: Sequence[str]) -> int:
    import hypothesis
    import pytest

    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    # The same examples every time; a failing one is of no use here, and neither is the smallest one like it
    phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
    hypothesis.settings.register_profile("mutants", derandomize=True, database=None, phases=phases)
    hypothesis.settings.load_profile("mutants")
    with tempfile.TemporaryDirectory() as folder:
        words = ["-x", "-q", "--tb=no", "--assert=plain", "-p", "no:cacheprovider", f"--basetemp={folder}/tmp"]
        return int(pytest.main([*words, *tests]))


class _Replacing(MetaPathFinder):
    """Finds one module, with another source."""

    def __init__(self, module: str, source: str) -> None:
        self.module, self.source = module, source

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.module:
            return None
        file = str(CHECKOUT / f"{fullname.replace('.', '/')}.py")
        return importlib.util.spec_from_file_location(fullname, file, loader=_Loader(fullname, file, self.source))


class _Loader(SourceFileLoader):
    def __init__(self, fullname: str, path: str, source: str) -> None:
        super().__init__(fullname, path)
        self.source = source

    def get_code(self, fullname: str) -> CodeType:
        return compile(self.source, self.path, "exec", dont_inherit=True)
