"""Where PyTorch is: networks in FP16 between our kernels; frames a second by the papers' protocol, and parity.

A row for each network and operator of its deformable convolutions. It is written to ``networks.jsonl`` as soon as it
is there, and holds the error instead where the network could not be measured.
"""

from __future__ import annotations

import importlib.util
import math
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gfl_edge.bench.frames import FrameSet, generated_frame
from gfl_edge.bench.paper import PAPER_MODELS
from gfl_edge.bench.protocols import GFocal, StageReader, TimedRun
from gfl_edge.bench.timing import summarize, warm_up
from gfl_edge.cuda import open_device
from gfl_edge.cuda.interface import CudaDevice
from gfl_edge.detector import Detector
from gfl_edge.ops.preprocess import Image, single_input
from gfl_edge.parsing.json_text import json_text

if TYPE_CHECKING:
    from train.models.build import Architecture

SECONDS = 75  # after which no network is begun
MODELS = (  # the most valuable first
    "gfl-x101-dcn-2x",
    "gfl-r50-1x",
    "nanodet-plus-m-416",
    "gfl-r101-2x",
    "gfl-r101-dcn-2x",
    "gfl-x101-2x",
    "nanodet-m-320",
    "nanodet-g-416",
    "gflv2-r50-1x",
)
COMPARED = "gfl-x101-dcn-2x"  # by all operators of its deformable convolutions, at the end


@dataclass(frozen=True)
class Effort:
    """How much is done, and on what PyTorch computes."""

    first_runs: int  # in which algorithms are chosen and the graph is captured, which may take seconds
    runs: int
    seconds: float  # at most, of one protocol's runs
    warm_up_seconds: float
    frame_hw: tuple[int, int]
    place: str


MUCH = Effort(6, 100, 1.5, 0.3, (1080, 1920), "cuda")
LITTLE = Effort(1, 2, 1.0, 0.0, (48, 80), "cpu")


@dataclass(frozen=True)
class Wanted:
    """A network, at a size; ``operator`` computes its deformable convolutions, "" where it has none."""

    name: str
    architecture: Architecture
    input_hw: tuple[int, int]
    operator: str


def measure(folder: Path, small: bool) -> dict[str, Any]:
    """Rows by network; ``folder`` takes them one by one, too."""
    if importlib.util.find_spec("torch") is None:
        return {"not_measured": "PyTorch is not installed"}
    import torch

    if not small and not torch.cuda.is_available():
        return {"not_measured": "PyTorch finds no GPU"}
    device, start, rows = open_device("cuda-python"), time.monotonic(), []
    for wanted in _tiny() if small else _published():
        if time.monotonic() - start > SECONDS:
            rows.append({**_named(wanted), "not_measured": f"{SECONDS} s were over"})
        else:
            rows.append(_finite(_attempt(wanted, device, LITTLE if small else MUCH)))
        with (folder / "networks.jsonl").open("a") as file:
            file.write(f"{json_text(rows[-1])}\n")
    return {"gpu": device.name, "weights": "random", "torch": torch.__version__, **_versions(), "rows": rows}


def _finite(value: Any) -> Any:
    """JSON has no number for NaN and infinity: their names instead."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _versions() -> dict[str, Any]:
    import torch

    cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    return {"torch_cuda": torch.version.cuda, "cudnn": cudnn}


def _published() -> Iterator[Wanted]:
    from benchmarks.lent.torch_network import architecture_of, operators
    from train.describe import find_preset
    from train.models.gfl import GFLConfig

    def wanted(name: str, operator: str) -> Wanted:
        architecture = architecture_of(name)
        deformed = isinstance(architecture, GFLConfig) and architecture.dcn is not None
        return Wanted(name, architecture, find_preset(name).input_hw, operator if deformed else "")

    first, *others = operators()
    yield from (wanted(name, first) for name in MODELS)
    yield from (wanted(COMPARED, operator) for operator in others)


def _tiny() -> Iterator[Wanted]:
    from train.models.gfl import GFLConfig
    from train.models.nanodet import NanoDetConfig

    narrow: dict[str, Any] = {
        "num_classes": 8,
        "base_channels": 8,
        "neck_channels": 16,
        "head_channels": 16,
        "num_groups": 4,
    }
    dcn: dict[str, Any] = {"dcn": "v1", "dcn_stages": (False, False, False, True)}
    yield Wanted("gfl", GFLConfig(**narrow, **dcn), (64, 96), "grid_sample of groups")
    yield Wanted("gflv2", GFLConfig("gflv2", **narrow, **dcn), (64, 96), "grid_sample")
    yield Wanted("nanodet-plus", NanoDetConfig("nanodet-plus", num_classes=5), (64, 64), "")


def _named(wanted: Wanted) -> dict[str, Any]:
    return {
        "model": wanted.name,
        "input_hw": wanted.input_hw,
        "deform_operator": wanted.operator or None,
        "paper_fps_rtx_2080_ti": next((paper.fps for paper in PAPER_MODELS if paper.name == wanted.name), None),
    }


def _attempt(wanted: Wanted, device: CudaDevice, effort: Effort) -> dict[str, Any]:
    """The row; what was found so far and the error where it fails."""
    row, start = _named(wanted), time.monotonic()
    seconds: dict[str, float] = {}
    try:
        for part in _parts(wanted, device, effort):
            row |= part
            seconds[next(iter(part))] = round(time.monotonic() - start, 1)
    except Exception as error:  # one network that fails must not take the others along
        row["error"] = f"{type(error).__name__}: {error}"[:2000]
    return {**row, "seconds_until": seconds, "seconds": round(time.monotonic() - start, 1)}


def _parts(wanted: Wanted, device: CudaDevice, effort: Effort) -> Iterator[dict[str, Any]]:
    """What is found of one network, the most valuable first."""
    import torch

    from benchmarks.lent import torch_parity
    from benchmarks.lent.torch_backend import TorchBackend
    from benchmarks.lent.torch_network import (
        TORCHVISION,
        RawNetwork,
        give_candidates,
        operators,
        random_detector,
        use_operator,
    )

    place = torch.device(effort.place)
    detector, spec = random_detector(wanted.architecture, wanted.input_hw, place)
    frame = _frame(effort.frame_hw)
    images = single_input(frame, spec)
    on_device = torch.from_numpy(images).to(place)
    exact = RawNetwork(detector, replace(spec, precision="fp32"), torch.float32)
    give_candidates(exact, spec.score_threshold, on_device)
    network = exact.half_copy()
    if wanted.operator:
        use_operator(network, operators()[wanted.operator])
    torch.backends.cudnn.benchmark = True  # of what is timed alone: trying algorithms takes seconds
    own_stream = wanted.operator != TORCHVISION
    with closing(TorchBackend(network, spec, device, own_stream)) as backend:
        user = Detector(backend)
        protocol = GFocal(user, FrameSet((images[0],), None, 0))  # resized before the clock starts: here already
        yield {"gfocal": {**_timed(protocol.step, effort), "sm_clock_mhz": _sm_clock_mhz(device)}}
        yield {"graph": backend.graph, "differs_from_protocol": protocol.differences()}
        yield {"stream": _timed(partial(_from_frame, user, frame, StageReader(user)), effort)}
        yield {"kernels_against_numpy": torch_parity.of_kernels(backend, images)}
        maps = torch_parity.raw_maps(backend)
        yield {"resizing_against_host": torch_parity.of_resizing(backend, frame)}
    torch.backends.cudnn.benchmark = False
    yield {"fp16_against_fp32": torch_parity.of_rounding(maps, exact, spec, on_device)}


@cache
def _frame(size_hw: tuple[int, int]) -> Image:
    return generated_frame(np.random.default_rng(0), size_hw)


def _from_frame(detector: Detector, frame: Image, stages: StageReader) -> TimedRun:
    """What the protocol "stream" times, without drawing, which it does not."""
    start = time.perf_counter()
    found = detector.infer(detector.prepare([frame]))
    return TimedRun(1000 * (time.perf_counter() - start), stages.split(found.ms))


def _timed(step: Callable[[], TimedRun], effort: Effort) -> dict[str, Any]:
    """Statistics of the latency, and the medians of the stages."""
    for _ in range(effort.first_runs):
        step()
    seconds = effort.warm_up_seconds
    warm = warm_up(lambda: step().latency_ms, max_seconds=2 * seconds, min_seconds=seconds)
    runs: list[TimedRun] = []
    start = time.monotonic()
    while len(runs) < effort.runs and time.monotonic() - start < effort.seconds:
        runs.append(step())
    latency = summarize([run.latency_ms for run in runs])
    names = ("fps", "mean_ms", "p50_ms", "p90_ms", "min_ms")
    stages = {name: float(np.median([run.stages_ms[name] for run in runs])) for name in runs[0].stages_ms}
    return {
        "runs": latency.samples,
        "warm_up_runs": effort.first_runs + warm.runs,
        **{name: round(getattr(latency, name), 4) for name in names},
        "stages_p50_ms": {name: round(ms, 4) for name, ms in stages.items()},
    }


def _sm_clock_mhz(device: CudaDevice) -> float | None:
    """Right after the runs, as ``nvidia-smi`` says it."""
    if shutil.which("nvidia-smi") is None:
        return None
    words = ["nvidia-smi", "--query-gpu=clocks.sm", "--format=csv,noheader,nounits", "-i", device.pci_bus_id]
    said = subprocess.run(words, capture_output=True, text=True, timeout=20, check=False).stdout.strip()
    return float(said) if said.replace(".", "", 1).isdigit() else None
