"""Where PyTorch and images are: COCO AP of published weights, in FP32 and FP16, with our kernels around the network.

The images lie below the data folder (``GFL_EDGE_DATA``) as ``coco/NAME``, their annotations as
``coco/instances_NAME.json``; NAME is ``val2017_mix397``, or what there is.
"""

from __future__ import annotations

import importlib.util
import json
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from gfl_edge.cuda import open_device
from gfl_edge.cuda.interface import CudaDevice
from gfl_edge.detector import Detector
from gfl_edge.evaluation.ap import evaluate
from gfl_edge.spec import Precision
from train.weights.find import CHECKPOINTS, data_folder

MODEL = "nanodet-plus-m-416"
DOCUMENTED = "fp32, NMS in the graph, openvino"
PREFERRED = "val2017_mix397"
RESULT = Path(__file__).resolve().parent.parent / "results" / "ap_mix397.json"


def measure(folder: Path, small: bool) -> dict[str, Any]:
    """AP by precision, beside the documented one where the images are all of those."""
    if importlib.util.find_spec("torch") is None:
        return {"not_measured": "PyTorch is not installed"}
    import torch

    if not small and not torch.cuda.is_available():
        return {"not_measured": "PyTorch finds no GPU"}
    weights, name = data_folder() / CHECKPOINTS[MODEL], _image_set(data_folder())
    if not weights.is_file() or name is None:
        return {"not_measured": f"GFL_EDGE_DATA has no {CHECKPOINTS[MODEL]}, or no coco/instances_NAME.json and images"}
    device = open_device("cuda-python")
    precisions: tuple[Precision, ...] = ("fp16",) if small else ("fp32", "fp16")
    found: dict[str, Any] = {precision: _attempt(weights, name, device, precision, small) for precision in precisions}
    documented = json.loads(RESULT.read_text())["models"][MODEL][DOCUMENTED]["AP"] if name == PREFERRED else None
    return {"model": MODEL, "gpu": device.name, "images": name, "documented_AP": documented, **found}


def _image_set(data: Path) -> str | None:
    files = sorted((data / "coco").glob("instances_*.json"))
    names = [path.stem.removeprefix("instances_") for path in files]
    there = [name for name in names if (data / "coco" / name).is_dir()]
    return PREFERRED if PREFERRED in there else next(iter(there), None)


def _attempt(weights: Path, name: str, device: CudaDevice, precision: Precision, small: bool) -> dict[str, Any]:
    start = time.monotonic()
    try:
        found = _evaluated(weights, name, device, precision, small)
    except Exception as error:  # the other precision must not be lost
        found = {"error": f"{type(error).__name__}: {error}"[:2000]}
    return {**found, "seconds": round(time.monotonic() - start, 1)}


def _evaluated(weights: Path, name: str, device: CudaDevice, precision: Precision, small: bool) -> dict[str, Any]:
    import torch

    from benchmarks.lent.torch_backend import TorchBackend
    from benchmarks.lent.torch_network import RawNetwork
    from train.describe import Wanted, find_preset, load_described

    preset = find_preset(MODEL)
    network, spec = load_described(weights, Wanted(family=preset.family, input_hw=preset.input_hw))
    spec = replace(spec, precision=precision, nms="raw")
    dtype = torch.float16 if precision == "fp16" else torch.float32
    raw = RawNetwork(network.to("cpu" if small else "cuda"), spec, dtype)
    data = data_folder() / "coco"
    torch.backends.cudnn.allow_tf32 = False
    with closing(TorchBackend(raw, spec, device)) as backend:
        limit = 2 if small else None
        result = evaluate(Detector(backend), data / name, data / f"instances_{name}.json", limit, progress=False)
        return {**result.to_dict(), "graph": backend.graph}
