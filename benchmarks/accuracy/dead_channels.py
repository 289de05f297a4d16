"""What helps INT8 in networks with dead channels, such as EfficientNet, and what it does to others."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from onnx import ModelProto

from benchmarks.accuracy import treatments
from benchmarks.kept import kept
from benchmarks.models import IMAGES as HELD_OUT
from benchmarks.models import export
from benchmarks.training.training import read_shipped, train_seconds
from calib import equalize, placement, qdq
from calib.arguments import CalibrationRequest
from calib.candidates import FloatModel
from calib.histogram import METHODS, Method
from calib.images import MIN_IMAGES, choose_images
from calib.observed import Observed, observe
from calib.qdq import QdqGraph
from calib.sensitivity import Probe
from export.arguments import ExportRequest
from export.to_onnx import export_onnx
from train.checkpoint import LAST
from train.config import Config, OptimizerConfig, QuantizeConfig, ScheduleConfig
from train.weights.find import data_folder

logger = logging.getLogger(__name__)

CALIBRATION, IMAGES, PROBES = "coco128/train2017", 16, 6
LITE, TUNED = "EfficientNet-Lite0", "fine-tuned with fake quantization"
OTHER = "nanodet-plus-m-416"
RECIPE, TUNING_EPOCHS = "efficientnet_coco128", 1
TODAY = "as calibrated"


def measure(folder: Path) -> dict[str, Any]:
    """Signal to noise of each treatment on a network trained here and a published one.

    What ``folder`` has already is not made again.
    """
    recipe = read_shipped(RECIPE, folder)
    lite, tuned = trained(recipe, folder)
    paths = {OTHER: export(OTHER, folder, "fp16"), LITE: lite}
    models = {name: _measured(name, path, folder) for name, path in paths.items()}
    models[LITE]["treatments"][TUNED] = Subject.load(tuned, folder).decibels(TODAY)
    return {
        "calibrated_on": CALIBRATION,
        "calibration_images": IMAGES,
        "compared_on": HELD_OUT,
        "compared_images": PROBES,
        "recipe": f"train/configs/{RECIPE}.toml",
        "epochs": recipe.train.epochs,
        "fine_tuning_epochs": TUNING_EPOCHS,
        "models": models,
    }


def _measured(name: str, onnx: Path, folder: Path) -> dict[str, Any]:
    return kept(folder / f"{name}.json", lambda: Subject.load(onnx, folder).measured())


@dataclass(frozen=True)
class Treated:
    """A float32 graph after a treatment, and what calibration makes of it."""

    changed: int  # tensors or channels
    plain: ModelProto
    graph: QdqGraph
    observed: Observed
    means: dict[str, list[float]]  # of channels, from which biases are corrected

    def quantized(self, method: Method) -> ModelProto:
        """With Q/DQ pairs on all that can be INT8."""
        return self.graph.quantized(self.observed.clipped(method), self.means)


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
        """What forms of the model are compared on: images that no range is from."""
        held_out = choose_images(data_folder() / HELD_OUT, MIN_IMAGES, 0).inputs(self.model.spec)
        return Probe(self.plain(), self.model.spec, list(itertools.islice(held_out, PROBES)))

    def decibels(self, name: str) -> dict[str, Any]:
        """Of a treatment, by each method that ranges are found by, of all convolutions in INT8."""
        logger.info("== %s: %s", self.model.spec.name, name)
        treated, probe = self.treated(name), self.probe()
        found: dict[str, Any] = {"changed": treated.changed, "float_db": round(probe.snr_db(treated.plain), 1)}
        return found | {method: round(probe.snr_db(treated.quantized(method)), 2) for method in METHODS}

    def treated(self, name: str) -> Treated:
        """The model after a treatment."""
        plain = self.plain()
        changed = TREATMENTS[name](plain, self.images)
        graph = placement.place(plain, for_cpu=self.model.target == "cpu")
        found = observe(plain, graph.activations(), graph.conv_inputs(), self.images, len(self.images), progress=False)
        observed = Observed({}, *found, self.model.sha256, self.digest, self.names)
        means = observed.channel_means
        if name == UNCORRECTED:
            means = {tensor: [0.0] * len(values) for tensor, values in means.items()}
        return Treated(changed, plain, graph, observed, means)


Treatment = Callable[[ModelProto, treatments.Images], int]  # of a float32 graph, in place; how much it changed


def _equalize(model: ModelProto, images: treatments.Images) -> int:
    links = equalize.find_links(model)
    equalize.equalize(model, links, equalize.channel_ranges(model, links, images, len(images), progress=False))
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


def trained(recipe: Config, folder: Path) -> tuple[Path, Path]:
    """A detector with EfficientNet-Lite0, trained briefly from ImageNet weights, and fine-tuned from there; as FP16."""
    tuned = replace(
        recipe,
        model=replace(recipe.model, imagenet=False, gfl=None, weights=recipe.train.output / LAST),
        optimizer=OptimizerConfig(kind="adamw", lr=2e-5, weight_decay=0.0, decay_norms=False),
        schedule=ScheduleConfig(kind="cosine", warmup_steps=4),
        quantize=QuantizeConfig(enabled=True),
        train=replace(recipe.train, epochs=TUNING_EPOCHS, output=folder / "tuned", amp="none", freeze_stages=-1),
    )
    return exported(recipe, folder / "lite.onnx"), exported(tuned, folder / "tuned.onnx")


def exported(config: Config, onnx: Path) -> Path:
    """What a training gives, in FP16; both are done unless they are there."""
    if not (config.train.output / LAST).is_file():
        train_seconds(config)
    if not onnx.is_file():
        export_onnx(ExportRequest(config.train.output / LAST, precision="fp16"), onnx)
    return onnx
