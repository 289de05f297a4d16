"""Make a model INT8 and see that it still detects: python calib/calibrate.py --onnx M.onnx --images DIR -o Q.onnx."""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, cast, get_args

if __package__ in (None, ""):  # run as a script: the checkout's packages are not installed
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto

from calib import equalize, placement, qdq, sensitivity
from calib.agreement import Agreement, wrong_layers
from calib.arguments import CalibrationRequest, Target, add_calibration_arguments, options_from
from calib.histogram import METHODS, Method
from calib.images import CalibrationImages, choose_images
from calib.nms import Tail, add_nms, cut_nms
from calib.qdq import QdqGraph
from calib.ranges import Observed, observe
from calib.sensitivity import Journal, Probe, Sensitivity
from gfl_edge.backends.base import Backend
from gfl_edge.backends.select import CpuBackendName, open_backend, open_onnx_backend
from gfl_edge.console import log, run_command
from gfl_edge.detector import Detector
from gfl_edge.errors import CalibrationError, InputError
from gfl_edge.evaluation.ap import evaluate
from gfl_edge.files import sha256, write_atomically
from gfl_edge.ops.onnx_graph import copy_model
from gfl_edge.spec import PREFIX, ModelSpec, Precision, load_onnx, spec_of

logger = logging.getLogger(__name__)

RECORD_KEY = "gfl_edge_calibration"  # in the metadata of an INT8 model
PRECISION_FOR: dict[Target, Precision] = {"trt": "fp16", "cpu": "fp32"}
# ONNX Runtime computes Q/DQ pairs as they are written, as TensorRT does; OpenVINO is what runs INT8 files on CPUs
MEASURED_ON: dict[Target, CpuBackendName] = {"trt": "onnxruntime", "cpu": "openvino"}
AP_LAYERS = 8  # whose cost in AP is measured, not only in signal to noise
AP_IMAGES = 100  # on which
TABLE_ROWS = 15


@dataclass(frozen=True)
class _Model:
    """The model while it is worked on."""

    original: ModelProto  # without NMS, of its own precision
    tail: Tail
    spec: ModelSpec
    metadata: dict[str, str]
    target: Target
    sha256: str


def calibrate(request: CalibrationRequest, model: ModelProto | None = None) -> dict[str, Any]:
    """Write an INT8 model that passed its test, or none.

    Args:
        request: what to make INT8, and how.
        model: the content of ``request.onnx``, where that was read before; it is not changed.

    Returns:
        The record that is also in the file's metadata under ``RECORD_KEY``.

    Raises:
        InputError: unusable model, pictures or annotations.
        CalibrationError: the model is quantized already or too old, the cache is another model's, or its AP drops by
            more than ``max_ap_drop`` however many layers stay float.
    """
    _check(request)
    work = _load(request, model)
    pictures = choose_images(request.images, request.num_images, request.seed)
    for name in pictures.skipped:
        logger.info("cannot be read, left out: %s", name)
    logger.info("%s: %s, %s, for %s", request.onnx, work.spec.name, work.spec.precision, work.target)
    plain = qdq.to_float32(work.original)
    graph, observed = _observe(request, work, plain, pictures)
    probe_inputs = list(itertools.islice(pictures.inputs(work.spec), request.probe_images))
    probe = Probe(graph, placement.final_outputs(plain), probe_inputs)
    method, snr_db = _choose_method(request, graph, observed, probe)
    search = _Search(request, work, graph, method, observed)
    kept, measured = search.run(probe)
    record = {
        "method": method,
        "snr_db": snr_db,
        "target": work.target,
        "calibration_images": len(pictures),
        "calibration_sha256": pictures.digest,
        "model_sha256": work.sha256,
        **qdq.count_layers(search.candidate(kept)),
        "float_layers": kept,
        "computed_wrongly": search.wrong,
        "measured": measured,
        "versions": {name: metadata.version(name) for name in ("nvidia-modelopt", "onnx", "onnxruntime")},
    }
    write_atomically(request.output, search.finished(kept, record).SerializeToString())
    return record


def _check(request: CalibrationRequest) -> None:
    if (request.annotations is None) != (request.eval_images is None):
        raise InputError("--annotations and --eval-images belong together: give both, or none to measure no AP")
    if request.annotations is None and request.eval_limit is not None:
        raise InputError("--eval-limit without --annotations: there is nothing to measure")
    if request.max_ap_drop < 0:
        raise InputError(f"--max-ap-drop {request.max_ap_drop}: expected 0 or more, in points of AP")
    if request.probe_images < 1:
        raise InputError(f"--probe-images {request.probe_images}: expected at least 1")
    if request.output.suffix != ".onnx" or request.output.resolve() == request.onnx.resolve():
        raise InputError(f"-o {request.output}: expected another .onnx file than --onnx")


def _load(request: CalibrationRequest, loaded: ModelProto | None) -> _Model:
    model = copy_model(loaded) if loaded is not None else load_onnx(request.onnx)
    spec = spec_of(model, str(request.onnx))
    placement.check_quantizable(model, str(request.onnx))
    if spec.nms == "plugin":
        raise InputError(
            f"{request.onnx} was exported with --nms plugin, which nothing here can run. Export it with --nms graph, "
            "none or raw"
        )
    target = request.target or ("trt" if spec.precision == "fp16" else "cpu")
    if spec.precision != PRECISION_FOR[target]:
        half = " --fp16" if target == "trt" else ""
        raise InputError(
            f"{request.onnx} is {spec.precision}, and what stays float for --target {target} is "
            f"{PRECISION_FOR[target]}. Export it with: python export/to_onnx.py --weights CHECKPOINT{half} -o M.onnx"
        )
    properties = {prop.key: prop.value for prop in model.metadata_props if not prop.key.startswith(PREFIX)}
    tail = cut_nms(model, spec)
    return _Model(model, tail, spec, properties, target, sha256(request.onnx))


def _observe(
    request: CalibrationRequest, model: _Model, plain: ModelProto, pictures: CalibrationImages
) -> tuple[QdqGraph, Observed]:
    """The graph with Q/DQ pairs and what its activations look like; equalizes ``plain``."""
    cached = Observed.read(request.cache, model.sha256) if request.cache is not None else None
    if cached is not None and cached.images_sha256 != pictures.digest:
        logger.info("%s is of other pictures than those in %s: what it says is taken", request.cache, request.images)
    count, links = len(pictures), equalize.find_links(plain)
    if cached is not None:
        channel_ranges = cached.channel_ranges
    else:
        channel_ranges = equalize.channel_ranges(plain, links, pictures.inputs(model.spec), count)
    equalize.equalize(plain, links, channel_ranges)
    logger.info("placing Q/DQ pairs")
    graph = placement.place(plain, next(pictures.inputs(model.spec)), only_convolutions=model.target == "cpu")
    if cached is not None:
        return graph, cached
    bare = qdq.without_pairs(graph.model)
    found = observe(bare, graph.activations(), graph.conv_inputs(), pictures.inputs(model.spec), count)
    observed = Observed(channel_ranges, *found, model.sha256, pictures.digest, pictures.names)
    path = request.beside(".calibration.json")
    observed.write(path)
    logger.info("ranges: %s", path)
    return graph, observed


def _choose_method(
    request: CalibrationRequest, graph: QdqGraph, observed: Observed, probe: Probe
) -> tuple[Method, dict[str, float]]:
    """The method asked for, or the one with the best signal to noise; and that of all that were tried."""
    wanted = METHODS if request.method == "auto" else (request.method,)
    missing = [method for method in wanted if method not in observed.ranges]
    if missing:
        raise CalibrationError(f"{request.cache} has no ranges by {', '.join(missing)}. Leave out --cache to calibrate")
    models = {m: graph.quantized(observed.ranges[m], observed.channel_means) for m in wanted}
    found = {method: round(probe.snr_db(model), 2) for method, model in models.items()}
    best = max(wanted, key=lambda method: found[method])
    listed = ", ".join(f"{method} {value:.1f} dB" for method, value in found.items())
    logger.info("signal to noise at the head, all layers INT8: %s; taking %s", listed, best)
    return best, cast(dict[str, float], found)


class _Search:
    """Looks for the fewest layers that have to stay float."""

    def __init__(
        self,
        request: CalibrationRequest,
        model: _Model,
        graph: QdqGraph,
        method: Method,
        observed: Observed,
    ) -> None:
        self._request, self._model, self._graph = request, model, graph
        self._ranges, self._means = observed.ranges[method], observed.channel_means
        key = {
            "model_sha256": model.sha256,
            "images_sha256": observed.images_sha256,
            "method": method,
            "target": model.target,
            "probe_images": request.probe_images,
            "annotations_sha256": sha256(request.annotations) if request.annotations else None,
            "eval_limit": request.eval_limit,
        }
        self._journal = Journal(request.beside(".sensitivity.json"), key)
        self.wrong: list[str] = []
        self._reference: dict[str, float] = {}

    def run(self, probe: Probe) -> tuple[list[str], dict[str, Any] | None]:
        """Layers that stay float, and what was measured."""
        request = self._request
        if self._model.target == "cpu":
            self.wrong = self._journal.wrong_layers(lambda: self._wrong_layers(probe.pictures[:1]))
            if self.wrong:
                logger.info(
                    "OpenVINO computes %d layers wrongly in INT8, they stay float: %s", len(self.wrong), self.wrong
                )
        if request.annotations is None:
            if request.always_rank:
                self._rank(probe)
                self._draw(self.wrong)
            return self.wrong, None
        self._reference = self._journal.trial("reference", lambda: self._metrics(self._original(), request.eval_limit))
        reference = self._reference
        kept = self.wrong
        full = self._trial(kept)
        logger.info("AP %.2f in %s, %.2f with all layers INT8", reference["AP"], self._model.spec.precision, full["AP"])
        if not self._passes(full):
            self._rank(probe)
            small = self._journal.trial("reference, few images", lambda: self._metrics(self._original(), self._few()))
            sensitivity.measure_ap(self._alone, self._journal, AP_LAYERS, self._small_ap, small["AP"])
            kept = self._fewest()
        elif request.always_rank:
            self._rank(probe)
        if self._journal.layers:
            self._draw(kept)
        found = self._trial(kept)
        return kept, {
            **found,
            "reference": reference,
            "drop": round(reference["AP"] - found["AP"], 3),
            "annotations": request.annotations.name,
            "backend": MEASURED_ON[self._model.target],
        }

    def _wrong_layers(self, pictures: Sequence[NDArray[np.uint8]]) -> list[str]:
        reference = qdq.to_float32(self._model.original)
        agreement = Agreement(reference, self._model.spec, pictures)

        def lost_db(kept: list[str]) -> float:
            model = self.candidate(kept)
            qdq.fold_weights(model)
            return agreement.lost_db(model)

        return wrong_layers([layer.name for layer in self._graph.layers], lost_db)

    def _rank(self, probe: Probe) -> None:
        sensitivity.measure_snr(self._graph.layers, self._alone, probe, self._journal)

    def _draw(self, kept: list[str]) -> None:
        path = self._request.beside(".sensitivity.svg")
        sensitivity.draw(path, self._model.spec.name, self._ranking(), kept)
        table = sensitivity.table(self._ranking(), TABLE_ROWS)
        logger.info("%s\nall layers: %s, %s", table, path.with_suffix(".json"), path)

    def _ranking(self) -> list[Sensitivity]:
        return self._journal.ranking(self._request.max_ap_drop)

    def _fewest(self) -> list[str]:
        ranked = [row.layer for row in self._ranking() if row.layer not in self.wrong]

        def passes(count: int) -> bool:
            found = self._trial(self.wrong + ranked[:count])
            logger.info("%d layers float: AP %.2f", count, found["AP"])
            return self._passes(found)

        count = sensitivity.fewest(len(ranked) - 1, passes)
        if count is None:
            self._draw(self.wrong)
            best = max(trial["AP"] for name, trial in self._journal.trials.items() if "reference" not in name)
            raise CalibrationError(
                f"INT8 costs more than {self._request.max_ap_drop:g} AP however many layers stay float: {best:.2f} at "
                f"best, {self._reference['AP']:.2f} without. Nothing was written. The layers that hurt most:\n"
                f"{sensitivity.table(self._ranking(), TABLE_ROWS)}\n"
                "Calibrate on more or other --images, or fine-tune by train/train.py --set quantize.enabled=true"
            )
        return self.wrong + ranked[:count]

    def _passes(self, found: dict[str, float]) -> bool:
        return self._reference["AP"] - found["AP"] <= self._request.max_ap_drop

    def _trial(self, kept: list[str]) -> dict[str, float]:
        def measured() -> dict[str, float]:
            return self._metrics(self._opened(self.finished(kept, {})), self._request.eval_limit)

        return self._journal.trial(",".join(kept) or "all INT8", measured)

    def _small_ap(self, model: ModelProto) -> float:
        return self._metrics(self._opened(self._finish(model, {})), self._few())["AP"]

    def _few(self) -> int:
        return min(AP_IMAGES, self._request.eval_limit or AP_IMAGES)

    def _original(self) -> Backend:
        return open_backend(self._request.onnx, MEASURED_ON[self._model.target])

    def _opened(self, model: ModelProto) -> Backend:
        metadata = {prop.key: prop.value for prop in model.metadata_props}
        spec = ModelSpec.from_metadata(metadata, "the candidate")
        return open_onnx_backend(model, spec, MEASURED_ON[self._model.target])

    def _metrics(self, backend: Backend, limit: int | None) -> dict[str, float]:
        request = self._request
        assert request.annotations is not None
        assert request.eval_images is not None
        with Detector(backend) as detector:
            found = evaluate(detector, request.eval_images, request.annotations, limit)
        return {**{name: round(found.metrics[name], 3) for name in ("AP", "AP50", "AP75")}, "images": found.images}

    def candidate(self, kept: list[str]) -> ModelProto:
        """The quantized float32 graph with these layers float."""
        return self._graph.quantized(self._ranges, self._means, kept)

    def _alone(self, layer: str) -> ModelProto:
        return self.candidate([other.name for other in self._graph.layers if other.name != layer])

    def finished(self, kept: list[str], record: dict[str, Any]) -> ModelProto:
        """The model as it is shipped, with these layers float."""
        return self._finish(self.candidate(kept), record)

    def _finish(self, model: ModelProto, record: dict[str, Any]) -> ModelProto:
        qdq.fold_weights(model)
        qdq.restore_half(model, self._model.original)
        add_nms(model, self._model.tail)
        spec = replace(self._model.spec, quantized_layers=qdq.count_layers(model)["quantized"])
        properties = {**self._model.metadata, **spec.to_metadata(), RECORD_KEY: json.dumps(record)}
        del model.metadata_props[:]
        for key, value in properties.items():
            model.metadata_props.add(key=key, value=value)
        onnx.checker.check_model(model, full_check=True)
        return model


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="calib/calibrate.py", description=__doc__)
    parser.add_argument("--onnx", type=Path, required=True, metavar="M.onnx", help="file of export/to_onnx.py")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="pictures of what it is to see")
    parser.add_argument(
        "--target",
        choices=get_args(Target),
        help="trt: the rest is half, for TensorRT; cpu: float32 (default: as the model is)",
    )
    add_calibration_arguments(parser)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT.onnx", help="file to write")
    return run_command(parser, _run, argv)


def _run(args: argparse.Namespace) -> int:
    request = replace(options_from(args), target=args.target).request(args.onnx, args.images, args.output)
    record = calibrate(request)
    print(json.dumps(record, indent=1))
    log(summary(record, request.output))
    return 0


def summary(record: dict[str, Any], path: Path) -> str:
    """One line on an INT8 model."""
    measured = record["measured"]
    ap = "AP not measured (no --annotations)"
    if measured:
        ap = f"AP {measured['AP']:.2f}, {measured['reference']['AP']:.2f} before, on {measured['images']} images"
    return (
        f"{path}: {record['quantized']} of {record['convolutions']} convolutions INT8, "
        f"{len(record['float_layers'])} layers kept float, {path.stat().st_size / 1e6:.2f} MB, {ap}"
    )


if __name__ == "__main__":
    sys.exit(main())
