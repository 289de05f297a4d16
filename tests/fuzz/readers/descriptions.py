"""What files say of models, engines, calibrations, trainings and measurements."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from functools import cache
from pathlib import Path
from random import Random

from gfl_edge.engine.sidecar import Sidecar
from gfl_edge.parsing.json_text import read_json
from gfl_edge.report.against import changes, read_report, table
from gfl_edge.spec import ModelSpec, read_spec
from tests.fuzz import nasty
from tests.fuzz.reader import Reader
from tests.support.foreign_configs import MMDET_V2, MMDET_V3, NANODET, PADDLE
from tests.support.tiny_engine import tiny_onnx
from tests.support.tiny_spec import TINY

RUN = b"""
[model]
name = "own"
[model.nanodet]
family = "nanodet-plus"
stage_channels = [48, 96, 192]
[data]
input_hw = [320, 416]
resize = "fit"
classes = ["cat", "dog"]
size_range = [0.5, 1.5]
[data.train]
format = "voc"
images = "."
annotations = "."
image_list = "."
class_names = ["cat", "dog"]
[data.augmentation]
flip = 0.5
scale = [0.7, 1.3]
[optimizer]
kind = "adamw"
lr = 1e-3
betas = [0.9, 0.999]
[schedule]
kind = "step"
milestones = [8, 11]
[train]
output = "runs/own"
epochs = 12
ema_decay = 0.9998
amp = "bf16"
"""
REPORT = Path(__file__).resolve().parents[3] / "benchmarks" / "results" / "report" / "report.json"


def small_onnx() -> list[bytes]:
    """The file of a small network."""
    with tempfile.TemporaryDirectory() as folder:
        tiny_onnx(Path(folder) / "tiny.onnx")
        return [(Path(folder) / "tiny.onnx").read_bytes()]


def change_metadata(random: Random, content: bytes) -> bytes:
    """Another value of one field, or another field, in a file that stays one of ONNX."""
    import onnx

    model = onnx.load_from_string(content)
    prop = random.choice(model.metadata_props)
    values = [
        *nasty.TEXTS,
        *map(str, nasty.INTEGERS),
        nasty.deep(100_000),
        "1" * 100_000,
        "-1",
        "[8, 8]",
        "true",
        "1e999",
    ]
    value = random.choice(values)
    prop.value = value if random.random() < 0.5 else json.dumps(value)
    if random.random() < 0.1:
        prop.key = f"gfl_edge.{random.choice(nasty.TEXTS)}"
    return bytes(model.SerializeToString())


def spec(path: Path) -> object:
    """The fields of a spec as JSON, as they stand in metadata and beside engines."""
    found = ModelSpec.from_dict(read_json(path, "Export it again"), str(path))
    assert ModelSpec.from_metadata(found.to_metadata(), str(path)) == found
    return found


def sidecar(path: Path) -> object:
    """Beside an engine."""
    engine = path.with_suffix("")
    engine.write_bytes(b"engine")
    return Sidecar.read(engine).rebuild_command


def calibration_cache(path: Path) -> object:
    """For the model whose SHA-256 is 0."""
    from calib.observed import Observed

    return Observed.read(path, "0" * 64)


def journal(path: Path) -> object:
    """What is none of the search's is written anew."""
    from calib.journal import Journal

    return Journal(path, {"model": "a"}).layers


def training(path: Path) -> object:
    """A training run's settings, and what they are written as into its checkpoints."""
    from train.config import Config, read_config

    config = read_config(path)
    return Config.from_dict(config.to_dict(), path.parent)


def report(path: Path) -> object:
    """A measurement, and what is said of it against itself."""
    found = read_report(path)
    return table(changes(found, found, 1.1, 0.2))


def nanodet(path: Path) -> object:
    """A configuration of nanodet."""
    from train.weights.nanodet_config import read_nanodet_config

    return str(read_nanodet_config(path))


def of_export(path: Path) -> object:
    """A configuration that lies beside somebody else's ONNX file."""
    from gfl_edge.adopt.config import read_config

    return str(read_config(path))


def mmdetection(path: Path) -> object:
    """A configuration of mmdetection."""
    from train.weights.mmdet_config import read_mmdet_config

    return str(read_mmdet_config(path))


def small_report() -> list[bytes]:
    """A real report, with its first run and model only."""
    tree = json.loads(REPORT.read_text())
    runs = tree["runs"][:1]
    models = [model for model in tree["models"] if model["id"] == runs[0]["model"]]
    return [json.dumps({**tree, "runs": runs, "models": models, "paper": tree["paper"][:1]}).encode()]


CACHE = {
    "format": 3,
    "channel_ranges": {"a": [1.0, 2.5]},
    "ranges": {"max": {"a": 2.0}, "entropy": {"a": 1.5}},
    "bounds": {"a": [-1.5, 2.0]},
    "channel_means": {"a": [-0.5, 0.25]},
    "model_sha256": "0" * 64,
    "images_sha256": "1" * 64,
    "images": ["a.png"],
}
JOURNAL = {
    "key": {"model": "a"},
    "reference": {"AP": 30.0, "AP50": 50.0, "AP75": 25.0, "images": 12},
    "trials": [{"float_layers": ["w1"], "AP": 29.0, "AP50": 49.0, "AP75": 24.0, "images": 12}],
    "layers": [{"layer": "w1", "kind": "Conv", "snr_db": 31.5}],
}
SIDECAR = Sidecar("rtx", "1.7.1.116", ("sm75", "sm86"), 3, "0" * 64, "1" * 64, TINY, 1.5, 9, 0)

READERS = [
    Reader("spec-in-onnx", read_spec, cache(small_onnx), ".onnx", change_metadata),
    Reader("spec", spec, [json.dumps(dataclasses.asdict(TINY)).encode()], ".json"),
    Reader("sidecar", sidecar, [SIDECAR.to_json()], ".engine.json"),
    Reader("calibration-cache", calibration_cache, [json.dumps(CACHE).encode()], ".json"),
    Reader("calibration-journal", journal, [json.dumps(JOURNAL).encode()], ".json"),
    Reader("training", training, [RUN], ".toml"),
    Reader("report", report, small_report, ".json"),
    Reader("nanodet-config", nanodet, [NANODET.encode()], ".yml"),
    Reader("export-config", of_export, [PADDLE.encode(), NANODET.encode()], ".yml"),
    Reader("mmdet-config", mmdetection, [MMDET_V3.encode(), MMDET_V2.encode()], ".py"),
]
