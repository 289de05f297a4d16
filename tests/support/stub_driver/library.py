"""The stand-in for NVIDIA's driver: built, and what tests ask it."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
NAME = "libcuda.so.1"
COMPILER = os.environ.get("CXX", "g++")


def why_not_built() -> str:
    """What is missing to build it here; empty if nothing is."""
    return "" if shutil.which(COMPILER) else "there is no C++ compiler for the stub driver; install g++ or set CXX"


def build(folder: Path) -> None:
    """Put the library into ``folder``, which a loader has to look into before the system's: ``LD_LIBRARY_PATH``."""
    made = folder.with_suffix(".part")
    made.mkdir(exist_ok=True)
    flags = ("-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC")
    linked = (f"-Wl,-soname,{NAME}", f"-Wl,--version-script={HERE / 'exports.map'}")
    words = [COMPILER, *flags, *linked, "-o", str(made / NAME), str(HERE / "driver.cpp"), "-ldl"]
    subprocess.run(words, check=True, timeout=300)
    made.rename(folder)


class StubDriver:
    """The library in this process, once CUDA was opened or before."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(NAME)
        self._library.stub_calls.restype = ctypes.c_char_p
        self._library.stub_count.restype = ctypes.c_long

    @property
    def calls(self) -> list[str]:
        """Names of the functions called, in order."""
        return self._library.stub_calls().decode().split()

    def clear_calls(self) -> None:
        self._library.stub_clear_calls()

    def fail(self, function: str, status: int) -> None:
        """Let a function answer ``status`` from now on; 0: no longer."""
        self._library.stub_fail(function.encode(), status)

    def set(self, what: str, value: int) -> None:
        """ "driver_version", "sm", "sleep_ms" (of each synchronization), "room", "no_device", "integrated" (the GPU),
        "sticky" (an error).
        """
        self._library.stub_set(what.encode(), ctypes.c_long(value))

    def count(self, what: str) -> int:
        """ "device" and "pinned" blocks, "streams", "events", "modules", "graphs", "references" of the primary context,
        "stack" of this thread, "queued" pieces of work, "capturing" streams.
        """
        return int(self._library.stub_count(what.encode()))

    def left(self) -> dict[str, int]:
        """What was not given back, by kind."""
        kinds = ("device", "pinned", "streams", "events", "modules", "graphs", "stack")
        return {kind: found for kind in kinds if (found := self.count(kind))}
