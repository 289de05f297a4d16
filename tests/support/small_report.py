"""A small model, a small dataset and the report of a real measurement of both."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gfl_edge.bench import measure, report, timing
from gfl_edge.bench.frames import generated_frame
from gfl_edge.bench.report import BenchRequest, bench
from tests.support.tiny_engine import tiny_onnx


@pytest.fixture
def short_turns() -> Iterator[None]:
    """Turns and warm-ups of milliseconds."""
    with pytest.MonkeyPatch.context() as patch:
        _shorten(patch)
        yield


def _shorten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(measure, "TURN_SECONDS", 0.01)
    patch.setattr(report, "MIN_GPU_SECONDS", 0.0)
    patch.setattr(timing.warm_up, "__kwdefaults__", {**timing.warm_up.__kwdefaults__, "max_runs": 20})


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX file of a detector without NMS, whose name is "tiny"."""
    pytest.importorskip("onnxruntime")
    path = tmp_path_factory.mktemp("tiny") / "tiny.onnx"
    tiny_onnx(path)
    return path


@pytest.fixture(scope="session")
def small_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three images of 60 x 90 with their annotations in a.json."""
    cv2 = pytest.importorskip("cv2")
    folder = tmp_path_factory.mktemp("data")
    generator = np.random.default_rng(0)
    for number in (1, 2, 3):
        cv2.imwrite(str(folder / f"{number}.png"), generated_frame(generator, (60, 90)))
    box = {"category_id": 1, "bbox": [5, 5, 40, 30], "area": 1200, "iscrowd": 0}
    content = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 90, "height": 60} for i in (1, 2, 3)],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [{"id": i, "image_id": i, **box} for i in (1, 2, 3)],
    }
    (folder / "a.json").write_text(json.dumps(content))
    return folder


def small_request(model: Path, **changes: Any) -> BenchRequest:
    """What to measure of ``model``, in little time."""
    return replace(BenchRequest((model,), backend="onnxruntime", seconds=0.02), **changes)


@pytest.fixture(scope="session")
def measured_tree(tiny: Path, small_dataset: Path) -> dict[str, Any]:
    """The tree of a report with everything that this machine can have, through JSON and back; not to be changed."""
    with pytest.MonkeyPatch.context() as patch:
        _shorten(patch)
        asked = small_request(tiny, batches=(1, 2), images=small_dataset, annotations=small_dataset / "a.json")
        tree: dict[str, Any] = json.loads(json.dumps(bench(asked, ["gfl-edge", "bench"], progress=False).to_dict()))
        return tree


@pytest.fixture
def measured(measured_tree: dict[str, Any]) -> dict[str, Any]:
    """A copy of it that a test may change."""
    return copy.deepcopy(measured_tree)


@pytest.fixture
def stored(measured: dict[str, Any]) -> dict[str, Any]:
    """The same as it may look on a GPU: with every value that is missing on a CPU in a virtual machine."""
    for run in measured["runs"]:
        ranges = [{"name": "sm", "min": 1350.0, "mean": 1500.0, "max": 1545.0}]
        run["device"].update(
            clocks_mhz=ranges,
            temperatures_c=[{**ranges[0], "name": "gpu", "mean": 70.0}],
            powers_w=[{**ranges[0], "name": "total", "mean": 220.0}],
            energy_per_image_j=1.25,
            energy_from="counter",
            throttled=True,
            throttle_reasons=["power cap reached"],
            missing=[{"what": "memory", "why": "NVML: Not Supported"}],
        )
    here = {
        "model": "tiny-fp32",
        "device": "RTX 2080 Ti",
        "fps": 33.3,
        "ratio": 3.33,
        "real_time": True,
        "ap": 48.1,
    }
    next(row for row in measured["paper"] if row["target"])["here"] = here
    return measured
