"""From a checkpoint or an ONNX file to a TensorRT engine, as one call.

    result = build(EngineRequest(Path("nanodet_m.ckpt"), "fp16", targets=("sm75",)))
    print(result.engine, result.parity)

INT8 is calibrated on images of what the detector is to see::

    options = CalibrationOptions(annotations=Path("val.json"), eval_images=Path("val"))
    build(EngineRequest(Path("best.pt"), "int8", calib_images=Path("train"), calibration=options))
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from calib.arguments import CalibrationOptions
from calib.record import CalibrationRecord
from export.arguments import ExportOptions
from export.source import ARTIFACTS, OnnxFile, find_source
from export.to_onnx import export_model
from gfl_edge.engine.build import (
    BuildPlan,
    build_engine,
    check_plugin_place,
    check_targets,
    settle,
    warn_of_simulated_int8,
)
from gfl_edge.engine.options import BuildOptions
from gfl_edge.engine.sidecar import Sidecar
from gfl_edge.errors import InputError, PrecisionError
from gfl_edge.files import check_output, size_bytes
from gfl_edge.ops.tolerances import Parity
from gfl_edge.spec import PRECISION_OPTION, ModelSpec, Precision

logger = logging.getLogger(__name__)

EnginePrecision = Literal["fp32", "fp16", "bf16", "int8"]


@dataclass(frozen=True)
class EngineRequest:
    """What to build, and for what.

    Attributes:
        source: a checkpoint, a name of published weights, or an ONNX file; None: the newest model under ``ARTIFACTS``,
            else the bundled detector.
        precision: of a checkpoint's export. An ONNX file has to be of it, unless it is "fp32", which takes any.
            "int8" is INT8 convolutions, the rest FP16: calibrated first, unless the ONNX file is INT8 already.
        output_dir: takes the engine, its sidecar and the ONNX files on the way; made if missing.
        targets, flavor, max_batch: see :func:`gfl_edge.engine.build.plan`.
        export: how a checkpoint is exported.
        options: how the engine is built.
        timing_cache: file that full TensorRT reads and writes what it measures; None: none.
        calib_images: folder of images to calibrate INT8 on.
        calibration: how.
        unchecked: download published weights even if no digest of them is known.
    """

    source: Path | None = None
    precision: EnginePrecision = "fp32"
    output_dir: Path = ARTIFACTS
    targets: tuple[str, ...] = ()
    flavor: str = "auto"
    max_batch: int = 1
    export: ExportOptions = field(default_factory=ExportOptions)
    options: BuildOptions = field(default_factory=BuildOptions)
    timing_cache: Path | None = None
    calib_images: Path | None = None
    calibration: CalibrationOptions = field(default_factory=CalibrationOptions)
    unchecked: bool = False

    @property
    def int8(self) -> bool:
        """Whether the engine is to be INT8."""
        return self.precision == "int8"

    @property
    def float_precision(self) -> Precision:
        """Of what is not INT8."""
        return "fp16" if self.precision == "int8" else self.precision


@dataclass(frozen=True)
class EngineResult:
    """What was built.

    Attributes:
        engine: its sidecar lies next to it.
        sidecar: what the engine is.
        onnx: what it was built from.
        float_onnx: what ``onnx`` was calibrated from; else the same.
        parity: how far the exported graph is from PyTorch; None where no checkpoint was exported.
        calibration: what that did; None where nothing was calibrated.
    """

    engine: Path
    sidecar: Sidecar
    onnx: Path
    float_onnx: Path
    parity: Parity | None = None
    calibration: CalibrationRecord | None = None

    @property
    def spec(self) -> ModelSpec:
        """The description of the model."""
        return self.sidecar.spec


def build(request: EngineRequest, progress: bool = True) -> EngineResult:
    """Export and calibrate as requested, then build; what cannot work is refused before minutes of work.

    Args:
        request: what to build.
        progress: draw TensorRT's progress on stderr.

    Raises:
        InputError: options that do not go together, unusable checkpoint, INT8 without images to calibrate on, a folder
            that cannot be written.
        PrecisionError: the ONNX file is of another precision, or the network does not fit into FP16.
        ParityError: the exported graph does not compute what PyTorch computes.
        CalibrationError: see :func:`calib.run.calibrate`.
        BuildError, MissingDependencyError, BackendError: see :func:`gfl_edge.engine.build.build_engine`.
    """
    flavor, targets = settle(request.flavor, request.targets, request.max_batch)
    if request.source is None and request.export.model is not None:
        model = request.export.model
        raise InputError(f"--model {model} says which model the checkpoint is to be: give one with --weights")
    source = find_source(request.source, request.float_precision, request.int8, request.unchecked)
    _check(request, source)
    if request.int8 and request.calib_images is not None:
        warn_of_simulated_int8(flavor, targets)
    if not isinstance(source, OnnxFile):
        check_plugin_place(request.export.nms, flavor)
        check_targets(request.float_precision, targets)
    room = size_bytes(source.path if isinstance(source, OnnxFile) else source)
    check_output(request.output_dir / "model.engine", room)
    found = _onnx_for(request, source)
    del source  # a model of hundreds of MB would lie in memory while TensorRT builds
    engine, sidecar = build_engine(
        BuildPlan(found.onnx, flavor, targets, request.max_batch, found.spec, request.options, request.timing_cache),
        request.output_dir,
        progress,
    )
    return EngineResult(engine, sidecar, found.onnx, found.float_onnx, found.parity, found.calibration)


def _check(request: EngineRequest, source: Path | OnnxFile) -> None:
    """Raise GflEdgeError for a source that does not fit the request, and for what calibration would lack after it."""
    file = source if isinstance(source, OnnxFile) else None
    quantized = file is not None and file.spec.quantized_layers > 0
    wanted = request.float_precision
    if request.int8 and not quantized:
        if request.calib_images is None:
            raise InputError(
                f"--int8: {file.path if file else source} is not INT8 yet. Give images of what the detector is to see "
                "with --calib-images, and --annotations with --eval-images to have its AP tested"
            )
        from calib.run import check_needs  # needs ONNX Runtime, and only here

        check_needs(request.calib_images, request.calibration.annotations is not None)
    if file is not None and request.export.uncertainty and not file.spec.edge_sigma:
        raise InputError(
            f"--uncertainty: {file.path} was exported without, and its network does not give what is asked for. Export "
            "another with: python export/to_onnx.py --weights CHECKPOINT --uncertainty -o MODEL.onnx"
        )
    if file is None or wanted == "fp32":
        return
    if quantized and not request.int8:
        raise PrecisionError(
            f"{file.path} is INT8, '{wanted}' was requested. Give --int8, or the file it was made from"
        )
    if wanted != file.spec.precision:
        raise PrecisionError(
            f"{file.path} is {file.spec.precision}: precision is part of an ONNX file and is never changed silently. "
            "Export another with: python export/to_onnx.py --weights "
            f"CHECKPOINT{PRECISION_OPTION[wanted]} -o MODEL.onnx"
        )


@dataclass(frozen=True)
class _Onnx:
    """The file that the engine is built from, without its content."""

    onnx: Path
    spec: ModelSpec
    float_onnx: Path
    parity: Parity | None = None
    calibration: CalibrationRecord | None = None


def _onnx_for(request: EngineRequest, source: Path | OnnxFile) -> _Onnx:
    """The ONNX file to build from, exported first where ``source`` is a checkpoint, and calibrated for INT8."""
    parity = None
    if not isinstance(source, OnnxFile):
        exported = export_model(request.export.request(source, request.float_precision))
        parity = exported.parity
        source = OnnxFile(request.output_dir / f"{exported.spec.file_stem}.onnx", exported.model, exported.spec)
        exported.write(source.path)
    if not request.int8 or source.spec.quantized_layers:
        return _Onnx(source.path, source.spec, source.path, parity)
    from calib.run import calibrate  # needs ONNX Runtime, and only here

    assert request.calib_images is not None
    output = request.output_dir / f"{replace(source.spec, quantized_layers=1).file_stem}.onnx"
    calibration = request.calibration.request(source.path, request.calib_images, output)
    found = calibrate(calibration, source.model)
    logger.info("%s", found.record.summary(output))
    return _Onnx(output, found.spec, source.path, parity, found.record)
