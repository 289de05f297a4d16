"""What it takes to export and build the ten published GFL models on this CPU, at 800x1344 for the RTX 2080 Ti.

Their weights are random, as what is measured here does not depend on them.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.artifacts.engines import PRECISIONS, build
from export.arguments import ExportRequest
from export.to_onnx import export_onnx
from train.models.build import Architecture, build_network
from train.models.nanodet import NanoDet
from train.models.published import build_model, model_files
from train.weights.nanodet import PROJECT_KEY

logger = logging.getLogger(__name__)

TARGET = "sm75"


def measure(folder: Path) -> dict[str, Any]:
    """Export and build every model in both precisions; ``folder`` takes the files."""
    rows = []
    for name in (name for name in model_files() if name.startswith("gfl")):
        weights = random_weights(name, folder)
        for precision in PRECISIONS:
            onnx = folder / f"{name}-{precision}.onnx"
            logger.info("== %s, %s", name, precision)
            start = time.perf_counter()
            spec = export_onnx(ExportRequest(weights, precision), onnx).spec
            seconds = round(time.perf_counter() - start, 2)
            built = build(onnx, precision, TARGET, folder)
            rows.append({**built.row(name), "input_hw": spec.input_hw, "export_and_parity_seconds": seconds})
            built.result.engine.unlink()  # 100 MB and more each
            onnx.unlink()
        weights.unlink()
    return {"weights": "random", "rows": rows}


def random_weights(name: str, folder: Path, architecture: Architecture | None = None) -> Path:
    """A checkpoint with batch norms and offsets that are not those of a fresh network.

    Args:
        name: of a published model, or what to call the file.
        folder: where it is written.
        architecture: of the network; None: that of the published model.
    """
    torch.manual_seed(0)
    detector = build_model(name) if architecture is None else build_network(architecture)
    for module in detector.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None and module.running_var is not None:
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    for key, parameter in detector.named_parameters():
        if "conv_offset" in key:
            nn.init.normal_(parameter, std=0.01)
    state = detector.state_dict()
    if isinstance(detector, NanoDet):
        state[PROJECT_KEY] = torch.arange(detector.config.reg_max + 1.0)  # as in nanodet's own, which tells reg_max
    path = folder / f"{name}.pth"
    torch.save({"state_dict": state}, path)
    return path
