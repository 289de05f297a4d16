"""Whole trainings on real data: what they reach, how long they take, and whether the exported files agree."""

from __future__ import annotations

import csv
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.artifacts.engines import build
from export.arguments import ExportRequest
from export.to_onnx import export_onnx
from gfl_edge.detector import Detector
from gfl_edge.evaluation.ap import evaluate
from gfl_edge.parsing.json_text import json_text
from gfl_edge.report.plots import line_chart
from train.checkpoint import BEST, LAST
from train.config import Config, read_config
from train.data.load import load_data
from train.run import train
from train.validation import evaluate_checkpoint

CONFIGS = Path(__file__).resolve().parent.parent.parent / "train" / "configs"
REPORTED = ("AP", "AP50", "AP75")


def measure_bccd(folder: Path) -> dict[str, Any]:
    """Fine-tune NanoDet-m on blood cells by the shipped configuration, then take it to ONNX and an engine.

    The checkpoint is chosen on the validation list; the numbers of the test list are those of that checkpoint only.
    """
    config = read_shipped("bccd_nanodet_m", folder)
    seconds = train_seconds(config)
    best = config.train.output / BEST
    annotations, images = bccd_list(config, "test", folder)
    torch_result = evaluate_checkpoint(best, images, annotations)
    onnx = folder / "bccd.onnx"
    spec = export_onnx(ExportRequest(best), onnx).spec
    with Detector(onnx) as detector:
        onnx_result = evaluate(detector, images, annotations)
        backend = detector.backend.name
    half = folder / "bccd_fp16.onnx"
    export_onnx(ExportRequest(best, precision="fp16"), half)
    return {
        "config": "train/configs/bccd_nanodet_m.toml",
        "class_names": spec.class_names,
        "training_minutes": round(seconds / 60, 2),
        "validation_by_epoch": curve(config, "metrics.csv", ("epoch", *REPORTED)),
        "loss_by_step": curve(config, "losses.csv", ("step", "loss")),
        "test": {name: torch_result[name] for name in (*REPORTED, "images")},
        "test_of_the_onnx_file": {**{name: round(onnx_result.percent(name), 3) for name in REPORTED}, "on": backend},
        "engine": build(half, "fp16", "sm75", folder).row("bccd-nanodet-m"),
    }


def draw_bccd(result: dict[str, Any]) -> bytes:
    """The learning curve."""
    rows = result["validation_by_epoch"]
    curves = {f"validation {name}": [(row["epoch"], row[name]) for row in rows] for name in REPORTED}
    end = rows[-1]["epoch"]
    curves |= {f"test {name}": [(end, result["test"][name])] for name in ("AP", "AP50")}
    return line_chart("NanoDet-m, fine-tuned on 205 images of blood cells", "epoch", "percent", curves)


def measure_overfit(folder: Path) -> dict[str, Any]:
    """GFL-R18 learns 16 images of coco128 by heart."""
    config = read_shipped("overfit_gfl_r18", folder)
    seconds = train_seconds(config)
    return {
        "config": "train/configs/overfit_gfl_r18.toml",
        "training_minutes": round(seconds / 60, 2),
        "same_images_by_epoch": curve(config, "metrics.csv", ("epoch", *REPORTED)),
    }


def read_shipped(name: str, folder: Path) -> Config:
    """A configuration of train/configs that writes below ``folder``."""
    config = read_config(CONFIGS / f"{name}.toml")
    return replace(config, train=replace(config.train, output=folder / name))


def train_seconds(config: Config) -> float:
    """Seconds that it took; of a run that was stopped, those since it goes on."""
    start = time.perf_counter()
    train(config, resume=(config.train.output / LAST).is_file())
    return time.perf_counter() - start


def curve(config: Config, file_name: str, columns: tuple[str, ...]) -> list[dict[str, float]]:
    """Columns of a file that a run wrote, one row per line."""
    with (config.train.output / file_name).open(newline="") as file:
        return [{name: round(float(row[name]), 3) for name in columns} for row in csv.DictReader(file)]


def bccd_list(config: Config, name: str, folder: Path) -> tuple[Path, Path]:
    """COCO file and image folder of one of BCCD's lists: "train", "val" or "test"."""
    assert config.data.val is not None
    assert config.data.val.image_list is not None
    files = replace(config.data.val, image_list=config.data.val.image_list.with_name(f"{name}.txt"))
    annotations = load_data(replace(config.data, val=files)).val
    assert annotations is not None
    path = folder / f"{name}.json"
    path.write_text(json_text(annotations.to_coco()))
    return path, annotations.image_folder
