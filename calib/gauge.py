"""The AP that a calibration may cost, measured on a user's images through the pipeline that runs on the device."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from onnx import ModelProto

from calib.arguments import CalibrationRequest, Target
from calib.record import Accuracy, QuantizedAccuracy
from gfl_edge.annotations.records import Annotations
from gfl_edge.backends.select import CpuBackendName, open_onnx_backend
from gfl_edge.detector import Detector
from gfl_edge.evaluation.ap import evaluate_on
from gfl_edge.evaluation.truth import match_categories, read_truth
from gfl_edge.spec import spec_of

# ONNX Runtime computes Q/DQ pairs as they are written, as TensorRT does; OpenVINO is what runs INT8 files on CPUs
MEASURED_ON: dict[Target, CpuBackendName] = {"trt": "onnxruntime", "cpu": "openvino"}


@dataclass(frozen=True)
class Gauge:
    """Measures the accuracy of models.

    Attributes:
        truth: what AP is computed on, checked.
        backend: what runs the models.
        max_drop: points of AP that INT8 may cost.
    """

    truth: Annotations
    backend: CpuBackendName
    max_drop: float

    @classmethod
    def of(cls, request: CalibrationRequest, target: Target, class_names: tuple[str, ...]) -> Gauge | None:
        """What a request measures with, for a model of these classes; None where it has no annotations.

        Raises:
            AnnotationError: the annotations cannot be used, or not for these classes.
        """
        if request.annotations is None or request.eval_images is None:
            return None
        truth = read_truth(request.annotations, request.eval_images, request.eval_limit, request.on_bad)
        match_categories(truth, class_names)
        return cls(truth, MEASURED_ON[target], request.max_ap_drop)

    def measure(self, model: ModelProto) -> Accuracy:
        """The accuracy of a model with its spec in its metadata."""
        backend = open_onnx_backend(model, spec_of(model, "the candidate"), self.backend, performance="throughput")
        with Detector(backend) as detector:
            found = evaluate_on(self.truth, detector)
        ap, ap50, ap75 = (round(found.percent(name), 3) for name in ("AP", "AP50", "AP75"))
        return Accuracy(ap, ap50, ap75, found.images)

    def passes(self, found: Accuracy, reference: Accuracy) -> bool:
        """Whether INT8 costs no more than it may."""
        return self.max_drop >= reference.AP - found.AP

    def comparison(self, found: Accuracy, reference: Accuracy) -> QuantizedAccuracy:
        """What INT8 costs, as it stands in the record."""
        drop, name = round(reference.AP - found.AP, 3), Path(self.truth.origin).name
        return QuantizedAccuracy(**vars(found), reference=reference, drop=drop, annotations=name, backend=self.backend)
