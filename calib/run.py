"""One calibration, from its request to an INT8 model that passed its test."""

from __future__ import annotations

import itertools
import logging
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import cast

from onnx import ModelProto

from calib import equalize, placement, qdq, search, sensitivity
from calib.arguments import CalibrationRequest
from calib.candidates import Candidates, FloatModel, add_record
from calib.gauge import Gauge
from calib.histogram import METHODS, Method
from calib.images import CalibrationImages, check_folder, choose_images
from calib.journal import Journal
from calib.observed import Observed, observe
from calib.qdq import QdqGraph
from calib.record import CalibrationRecord
from calib.search import Choice
from calib.sensitivity import Probe
from gfl_edge import optional
from gfl_edge.errors import CalibrationError
from gfl_edge.files import check_output, sha256, size_bytes, write_atomically
from gfl_edge.spec import ModelSpec, spec_of

logger = logging.getLogger(__name__)

TABLE_ROWS = 15


@dataclass(frozen=True)
class Calibrated:
    """An INT8 model that passed its test.

    Attributes:
        path: of the ONNX file.
        spec: its description.
        record: what was done, as in the file's metadata.
    """

    path: Path
    spec: ModelSpec
    record: CalibrationRecord


def calibrate(request: CalibrationRequest, loaded: ModelProto | None = None) -> Calibrated:
    """Write an INT8 model that passed its test, or none.

    Args:
        request: what to make INT8, and how.
        loaded: the content of ``request.onnx``, where that was read before; it is not changed.

    Raises:
        InputError: unusable model, images or annotations; an output that cannot be written.
        CalibrationError: the model is quantized already or too old, the cache is another model's, or its AP drops by
            more than ``max_ap_drop`` however many layers stay float.
    """
    check_needs(request.images, request.annotations is not None)
    check_output(request.output, size_bytes(request.onnx))
    model = FloatModel.load(request, loaded)
    gauge = Gauge.of(request, model.target, model.spec.class_names)  # before minutes of work
    images = choose_images(request.images, request.num_images, request.seed)
    logger.info("%s: %s, %s, for %s", request.onnx, model.spec.name, model.spec.precision, model.target)
    plain = qdq.to_float32(model.graph)
    graph, observed = _observe(request, model, plain, images)
    probe_inputs = list(itertools.islice(images.inputs(model.spec), request.probe_images))
    probe = Probe(plain, model.spec, probe_inputs)
    method, snr_db = _choose_method(request, graph, observed, probe)
    candidates = Candidates(model, graph, observed.clipped(method), observed.channel_means)
    journal = _journal(request, model, observed, method)
    choice, float_layers = _search(request, candidates, probe, gauge, journal)
    measured = None
    if gauge is not None and choice.reference is not None:
        measured = gauge.comparison(journal.trials[tuple(float_layers)], choice.reference)
    finished = candidates.finished(float_layers)
    record = CalibrationRecord(
        method=method,
        snr_db=snr_db,
        target=model.target,
        calibration_images=len(images),
        calibration_sha256=images.digest,
        model_sha256=model.sha256,
        **qdq.count_layers(finished),
        float_layers=float_layers,
        measured=measured,
        versions={name: metadata.version(name) for name in ("onnx", "onnxruntime")},
    )
    add_record(finished, record)
    write_atomically(request.output, finished.SerializeToString())
    return Calibrated(request.output, spec_of(finished, str(request.output)), record)


def check_needs(images: Path, with_annotations: bool) -> None:
    """Find out before minutes of work whether a calibration has its images, and the packages that it needs at its end.

    Raises:
        InputError: no such folder.
        MissingDependencyError: a package is not installed.
    """
    check_folder(images)
    for module in ("cv2", "onnxruntime", "matplotlib.figure", *(["pycocotools"] if with_annotations else [])):
        optional.load(module)


def _observe(
    request: CalibrationRequest, model: FloatModel, plain: ModelProto, images: CalibrationImages
) -> tuple[QdqGraph, Observed]:
    """The graph with Q/DQ pairs and what its activations look like; equalizes ``plain``."""
    cached = Observed.read(request.cache, model.sha256) if request.cache is not None else None
    if cached is not None and cached.images_sha256 != images.digest:
        logger.info("%s is of other images than those in %s: it is used as it is", request.cache, request.images)
    count, links = len(images), equalize.find_links(plain)
    if cached is not None:
        channel_ranges = cached.channel_ranges
    else:
        channel_ranges = equalize.channel_ranges(plain, links, images.inputs(model.spec), count)
    equalize.equalize(plain, links, channel_ranges)
    graph = placement.place(plain, for_cpu=model.target == "cpu")
    if cached is not None:
        return graph, cached
    inputs, unsigned = images.inputs(model.spec), model.target == "cpu"
    found = observe(plain, graph.activations(), graph.conv_inputs(), inputs, count, unsigned=unsigned)
    observed = Observed(channel_ranges, *found, model.sha256, images.digest, images.names)
    path = request.beside(".calibration.json")
    observed.write(path)
    logger.info("ranges: %s", path)
    return graph, observed


def _choose_method(
    request: CalibrationRequest, graph: QdqGraph, observed: Observed, probe: Probe
) -> tuple[Method, dict[str, float]]:
    """The requested method, or the one with the best signal to noise; and that of all that were tried."""
    wanted = METHODS if request.method == "auto" else (request.method,)
    models = {m: graph.quantized(observed.clipped(m), observed.channel_means) for m in wanted}
    found = {method: round(probe.snr_db(model), 2) for method, model in models.items()}
    best = max(wanted, key=lambda method: found[method])
    listed = ", ".join(f"{method} {value:.1f} dB" for method, value in found.items())
    logger.info("signal to noise, all layers INT8: %s; taking %s", listed, best)
    return best, cast(dict[str, float], found)


def _journal(request: CalibrationRequest, model: FloatModel, observed: Observed, method: Method) -> Journal:
    key = {
        "model_sha256": model.sha256,
        "images_sha256": observed.images_sha256,
        "method": method,
        "target": model.target,
        "probe_images": request.probe_images,
        "annotations_sha256": sha256(request.annotations) if request.annotations else None,
        "eval_limit": request.eval_limit,
    }
    return Journal(request.beside(".sensitivity.json"), key)


def _search(
    request: CalibrationRequest, candidates: Candidates, probe: Probe, gauge: Gauge | None, journal: Journal
) -> tuple[Choice, list[str]]:
    """The choice, and its layers.

    Raises:
        CalibrationError: INT8 costs too much however many stay float; says which layers hurt most.
    """
    choice = search.choose(candidates, probe, gauge, journal, request.min_snr_db)
    table = sensitivity.table(choice.ranking, TABLE_ROWS)
    if choice.ranking:
        path, kept = request.beside(".sensitivity.svg"), choice.float_layers or []
        sensitivity.draw(path, candidates.model.spec.name, choice.ranking, kept)
        logger.info("%s\nall layers: %s, %s", table, path.with_suffix(".json"), path)
    if choice.float_layers is not None:
        return choice, choice.float_layers
    best = max(found.AP for found in journal.trials.values())
    assert choice.reference is not None
    raise CalibrationError(
        f"INT8 costs more than {request.max_ap_drop:g} AP however many layers stay float: {best:.2f} at best, "
        f"{choice.reference.AP:.2f} without. Nothing was written. The layers that hurt most:\n{table}\n"
        "Calibrate on more or other --images, or fine-tune by train/train.py --set quantize.enabled=true"
    )
