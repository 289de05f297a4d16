"""What helps INT8 in networks with dead channels, such as EfficientNet, and what it does to others."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from onnx import ModelProto

from benchmarks.accuracy import treatments
from benchmarks.accuracy.person import People
from benchmarks.models import export
from benchmarks.training.training import read_shipped, train_seconds
from calib import equalize, placement, qdq
from calib.arguments import CalibrationRequest
from calib.candidates import Candidates, FloatModel
from calib.histogram import METHODS
from calib.images import choose_images
from calib.observed import Observed, observe
from calib.qdq import QdqGraph
from calib.sensitivity import Probe
from export.arguments import ExportRequest
from export.to_onnx import export_onnx
from gfl_edge.detector import Detector
from gfl_edge.files import write_atomically
from gfl_edge.parsing.json_text import json_text
from gfl_edge.zoo.bundled import bundled_model
from train.checkpoint import LAST
from train.config import Config, OptimizerConfig, QuantizeConfig, ScheduleConfig
from train.weights.find import data_folder

logger = logging.getLogger(__name__)

CALIBRATION, IMAGES, PROBES = "coco128/train2017", 16, 4
LITE, BUNDLED, TUNED = "EfficientNet-Lite0", "bundled detector", "fine-tuned with fake quantization"
OTHER = "nanodet-plus-m-416"
RECIPE, SIDE, EPOCHS, TUNING_EPOCHS = "person", 320, 3, 1  # through the 128 images of coco128
TODAY = "as calibrated"


def measure(folder: Path) -> dict[str, Any]:
    """Signal to noise of each treatment on a network trained here, the bundled detector and a published one.

    What ``folder`` has already is not made again.
    """
    paths = {BUNDLED: bundled_model(), OTHER: export(OTHER, folder, "fp16")}
    ap = _kept(folder / "accuracy.json", lambda: accuracy(bundled_model(), folder))
    models = {name: _measured(name, path, folder) for name, path in paths.items()}
    lite, tuned = trained(folder)
    models[LITE] = _measured(LITE, lite, folder)
    models[LITE]["treatments"][TUNED] = Subject.load(tuned, folder).decibels(TODAY)
    return {
        "calibrated_on": CALIBRATION,
        "calibration_images": IMAGES,
        "probe_images": PROBES,
        "recipe": f"train/configs/{RECIPE}.toml on coco128 alone",
        "input_hw": (SIDE, SIDE),
        "epochs": EPOCHS,
        "fine_tuning_epochs": TUNING_EPOCHS,
        "models": models,
        "accuracy": ap,
    }


def _measured(name: str, onnx: Path, folder: Path) -> dict[str, Any]:
    return _kept(folder / f"{name}.json", lambda: Subject.load(onnx, folder).measured())


def _kept(path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What the file says, which is made unless it is there."""
    if not path.is_file():
        write_atomically(path, json_text(make()).encode())
    found: dict[str, Any] = json.loads(path.read_text())
    return found


@dataclass(frozen=True)
class Subject:
    """A float model and what INT8 forms of it are compared on."""

    model: FloatModel
    images: treatments.Images
    names: tuple[str, ...]
    digest: str

    @classmethod
    def load(cls, onnx: Path, folder: Path) -> Subject:
        """From a file that calibration takes."""
        request = CalibrationRequest(onnx, data_folder() / CALIBRATION, folder / "unused.onnx", num_images=IMAGES)
        model, chosen = FloatModel.load(request), choose_images(request.images, IMAGES, 0)
        return cls(model, list(chosen.inputs(model.spec)), chosen.names, chosen.digest)

    def plain(self) -> ModelProto:
        """The graph in float32."""
        return qdq.to_float32(self.model.graph)

    def measured(self) -> dict[str, Any]:
        """Dead channels, and decibels by treatment."""
        plain = self.plain()
        ends = treatments.ends_of(plain, treatments.find_links(plain), self.images)
        return {
            "channels": sum(len(found.dead) for found in ends.values()),
            "dead_channels": sum(int(found.dead.sum()) for found in ends.values()),
            "treatments": {name: self.decibels(name) for name in TREATMENTS},
        }

    def probe(self) -> Probe:
        """What forms of the model are compared on."""
        return Probe(self.plain(), self.model.spec, self.images[:PROBES])

    def decibels(self, name: str) -> dict[str, Any]:
        """Of a treatment, by each method that ranges are found by, of all convolutions in INT8."""
        logger.info("== %s: %s", self.model.spec.name, name)
        plain, probe = self.plain(), self.probe()
        changed = TREATMENTS[name](plain, self.images)
        graph, observed = self.observed(plain)
        means = _zeros(observed.channel_means) if name == UNCORRECTED else observed.channel_means
        found: dict[str, Any] = {"changed": changed, "float_db": round(probe.snr_db(plain), 1)}
        for method in METHODS:
            found[method] = round(probe.snr_db(graph.quantized(observed.clipped(method), means)), 2)
        return found

    def observed(self, plain: ModelProto) -> tuple[QdqGraph, Observed]:
        """The graph with Q/DQ pairs and what its activations look like."""
        graph = placement.place(plain, for_cpu=self.model.target == "cpu")
        found = observe(plain, graph.activations(), graph.conv_inputs(), self.images, len(self.images))
        return graph, Observed({}, *found, self.model.sha256, self.digest, self.names)


def _zeros(means: Mapping[str, list[float]]) -> dict[str, list[float]]:
    """Means for which nothing is corrected."""
    return {name: [0.0] * len(found) for name, found in means.items()}


Treatment = Callable[[ModelProto, treatments.Images], int]  # of a float32 graph, in place; how much it changed


def _equalize(model: ModelProto, images: treatments.Images) -> int:
    links = equalize.find_links(model)
    equalize.equalize(model, links, equalize.channel_ranges(model, links, images, len(images)))
    return len(links)


def _then(treatment: Treatment) -> Treatment:
    """After equalization; gives what the treatment does."""

    def both(model: ModelProto, images: treatments.Images) -> int:
        _equalize(model, images)
        return treatment(model, images)

    return both


UNCORRECTED = "biases not corrected"
TREATMENTS: dict[str, Treatment] = {
    TODAY: _equalize,
    "channels not equalized": lambda model, images: 0,
    UNCORRECTED: _equalize,
    "dead channels set to 0": _then(treatments.prune),
    "biases absorbed": _then(treatments.absorb),
    "scales through ReLU6 into depthwise weights": lambda model, images: treatments.scale_through_relu6(
        model, images, only_depthwise=True
    ),
    "scales through ReLU6 into all weights": lambda model, images: treatments.scale_through_relu6(
        model, images, only_depthwise=False
    ),
}


def trained(folder: Path) -> tuple[Path, Path]:
    """A detector with EfficientNet-Lite0, trained briefly from ImageNet weights, and fine-tuned from there; as FP16."""
    recipe = read_shipped(RECIPE, folder)
    (few,) = recipe.data.also
    data = replace(recipe.data, train=replace(few, repeat=1), also=(), val=None, sizes=(), input_hw=(SIDE, SIDE))
    short = replace(
        recipe,
        data=data,
        schedule=replace(recipe.schedule, warmup_steps=8),
        train=replace(recipe.train, epochs=EPOCHS, evaluate_every=0),
    )
    tuned = replace(
        short,
        model=replace(short.model, imagenet=False, gfl=None, name=None, weights=short.train.output / LAST),
        optimizer=OptimizerConfig(kind="adamw", lr=2e-5, weight_decay=0.0, decay_norms=False),
        schedule=ScheduleConfig(kind="cosine", warmup_steps=4),
        quantize=QuantizeConfig(enabled=True),
        train=replace(short.train, epochs=TUNING_EPOCHS, output=folder / "tuned", amp="none", freeze_stages=-1),
    )
    return exported(short, folder / "lite.onnx"), exported(tuned, folder / "tuned.onnx")


def exported(config: Config, onnx: Path) -> Path:
    """What a training gives, in FP16; both are done unless they are there."""
    if not (config.train.output / LAST).is_file():
        train_seconds(config)
    if not onnx.is_file():
        export_onnx(ExportRequest(config.train.output / LAST, precision="fp16"), onnx)
    return onnx


def accuracy(onnx: Path, folder: Path) -> dict[str, Any]:
    """AP of people by the bundled detector in float, in INT8 as calibrated, and with biases not corrected."""
    subject, people = Subject.load(onnx, folder), People()
    plain, probe = subject.plain(), subject.probe()
    _equalize(plain, subject.images)
    graph, observed = subject.observed(plain)
    means, ranges = observed.channel_means, {method: observed.clipped(method) for method in METHODS}
    best = max(METHODS, key=lambda method: probe.snr_db(graph.quantized(ranges[method], means)))
    paths = {"float": onnx}
    for label, used in ((TODAY, means), (UNCORRECTED, _zeros(means))):
        paths[label] = folder / f"{label}.onnx"
        finished = Candidates(subject.model, graph, ranges[best], used).finished(())
        paths[label].write_bytes(finished.SerializeToString())
    found: dict[str, Any] = {"method": best}
    for label, path in paths.items():
        with Detector(path, "onnxruntime") as detector:
            found[label] = people.accuracy(people.detect(detector))
    return found
