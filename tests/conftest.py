"""Where tests find data, and which tests a machine can run."""

from __future__ import annotations

import gc
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

# One thread a process, in subprocesses too: as many workers as cores run at the same time, and small networks lose more
# to threads than they gain. It counts only where it is set before NumPy and PyTorch are imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from tests.support.calibration import (  # noqa: F401
    annotations,
    calib_folder,
    calib_images,
    calibrated,
    float_onnx,
    half_onnx,
)
from tests.support.exported import exported, few_blocks, shuffling_onnx, small_onnx  # noqa: F401
from tests.support.once import once, shared_folder
from tests.support.required import required, skip_unless_required
from tests.support.small_report import measured, measured_tree, short_turns, small_dataset, stored, tiny  # noqa: F401
from tests.support.squares_run import squares, toml  # noqa: F401
from tests.support.traced import one_trace  # noqa: F401
from train.weights.find import CHECKPOINTS, data_folder

if TYPE_CHECKING:
    from tests.support.fake_gpu import FakeGpu
    from tests.support.fake_sources import Clock

# pytest gives its handlers to every logger that does not propagate, and PyTorch describes all that it traces for a log
# that somebody reads, which takes a tenth of an export
logging.getLogger("torch.__trace").addHandler = lambda handler: None  # type: ignore[method-assign]

CHECKOUT = Path(__file__).resolve().parent.parent

# What runs in the background of a shell ignores Ctrl-C, and so would what tests start and interrupt
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

gc.disable()  # until everything is imported and collected, of which nothing is garbage


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--run-slow", action="store_true", help="run the tests marked slow, too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    gpu_reason = _why_no_gpu()
    for item in items:
        if gpu_reason and item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason=f"no GPU: {gpu_reason}"))
        if item.get_closest_marker("slow") and not config.getoption("--run-slow"):
            item.add_marker(pytest.mark.skip(reason="slow: runs with --run-slow"))


def pytest_collection_finish() -> None:
    """What was imported and collected, millions of objects, is not looked at again by every collection of garbage."""
    gc.freeze()
    gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With ``GFL_EDGE_REQUIRE_GPU=1`` a test of the GPU fails where it would skip, whatever it lacks."""
    report = yield
    left_out = item.get_closest_marker("slow") and not item.config.getoption("--run-slow")
    if report.skipped and item.get_closest_marker("gpu") and required("GPU") and not left_out:
        report.outcome, report.longrepr = "failed", f"GFL_EDGE_REQUIRE_GPU is set, but it skips: {report.longrepr[2]}"
    return report


def _why_no_gpu() -> str | None:
    from gfl_edge.cuda import open_device
    from gfl_edge.errors import GflEdgeError

    try:
        open_device()
    except GflEdgeError as error:
        return str(error).partition(".")[0]
    return None


@pytest.fixture(scope="session")
def data() -> Callable[[str], Path]:
    """A file or folder of the test data by its path below the data folder; skips where it is not there."""

    def find(relative: str) -> Path:
        path = data_folder() / relative
        if not path.exists():
            skip_unless_required(f"{relative} is not in the data folder {data_folder()}; set GFL_EDGE_DATA")
        return path

    return find


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    """The GPU that backends open, a fake one, for which the kernels are compiled already."""
    from tests.support.fake_gpu import FAKE_CUBIN, FakeGpu

    device = FakeGpu()
    monkeypatch.setattr("gfl_edge.backends.tensorrt.open_device", lambda prefer: device)
    monkeypatch.setattr("gfl_edge.cuda.kernels.open_compiler", lambda driver: SimpleNamespace(version="Fake 1.0"))
    monkeypatch.setattr("gfl_edge.cuda.kernels.compiled", lambda *_: FAKE_CUBIN)
    return device


@pytest.fixture
def no_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr("gfl_edge.media.sinks.window_toolkit", lambda: "QT5")  # also where OpenCV is headless


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Time that passes only by sleeping, for what waits for a camera to come back."""
    from gfl_edge.media import capture, sources
    from tests.support.fake_sources import Clock

    clock = Clock()
    for module in (capture, sources):
        monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(capture, "pause", lambda stopped, seconds: clock.sleep(seconds))
    return clock


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Python's own Ctrl-C, which is off where the tests run in the background of a shell."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Small networks lose more to threads of PyTorch than they gain."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def checkpoint(data: Callable[[str], Path]) -> Callable[[str], Path]:
    """The checkpoint of a published model by its name."""
    return lambda name: data(CHECKPOINTS[name])


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Builds find no GPU here, wherever the tests run."""
    monkeypatch.setattr("gfl_edge.engine.build.current_sm", lambda required=False: None)


@pytest.fixture(scope="session")
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the files that are written once for all workers."""
    return shared_folder(request.config, tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session")
def wheel(shared: Path) -> Path:
    """The wheel of this checkout, built once per session."""
    pytest.importorskip("build.env", reason="builds the wheel")  # "build" may be the folder of setuptools
    (path,) = once(shared / "wheel", build_wheel).glob("*.whl")
    return path


def build_wheel(folder: Path) -> None:
    """Build it as `make wheel` does, except that what it is made of is not kept in the checkout."""
    made = folder.with_suffix(".part")
    made.mkdir()
    settings = made / "extra.cfg"
    settings.write_text(f"[build]\nbuild_base = {made / 'build'}\n")
    words = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(made), str(CHECKOUT)]
    environment = {**os.environ, "DIST_EXTRA_CONFIG": str(settings)}
    built = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    made.rename(folder)
