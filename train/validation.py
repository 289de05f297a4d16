"""AP of a network in PyTorch: while training, and of a checkpoint through the run time's detector."""

from __future__ import annotations

import itertools
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gfl_edge.annotations.checks import OnBad
from gfl_edge.annotations.records import Annotations
from gfl_edge.detections import Detections
from gfl_edge.detector import Detector
from gfl_edge.evaluation.ap import Metrics, as_coco, average_precision, coco_results, evaluate
from gfl_edge.evaluation.classes import best_score
from gfl_edge.ops import decode
from gfl_edge.ops.boxes import areas, multiclass_nms
from gfl_edge.ops.preprocess import Placement
from gfl_edge.progress import track
from gfl_edge.spec import SIGMAS, ModelSpec
from train.data.config import DataConfig
from train.data.loader import EvaluationLoader
from train.describe import Wanted, load_described, with_sigmas
from train.distributed import Process, from_main, gather, joined
from train.memory import enough_memory
from train.models.detector import Detector as Network
from train.network import Normalized

Floats = NDArray[np.float32]

logger = logging.getLogger(__name__)


class Predictor:
    """A network as the run time sees it: uint8 images in, scores and edges of all points out.

    Args:
        network: put into eval mode.
        spec: its normalization.
        device: to which images are brought.
    """

    def __init__(self, network: Network, spec: ModelSpec, device: torch.device) -> None:
        self.network, self.device = network.eval(), device
        self.normalized = Normalized(network.config.family, mean_bgr=spec.mean_bgr, std_bgr=spec.std_bgr).to(device)

    def __call__(self, images: torch.Tensor) -> tuple[Floats, Floats]:
        """uint8 ``[N, H, W, 3]`` BGR -> scores ``[N, A, C]`` and distances of edges in strides ``[N, A, 4]``, or their
        distribution's logits ``[N, A, 4 * (reg_max + 1)]``.
        """
        with torch.inference_mode():
            cls_logits, reg_logits = self.network(self.normalized(images.to(self.device)))
            scores, edges = (
                torch.cat([level.float().flatten(2) for level in maps], dim=2).transpose(1, 2)
                for maps in (cls_logits, reg_logits)
            )
            return scores.sigmoid().cpu().numpy(), edges.cpu().numpy()

    def boxes(self, edges: Floats, input_hw: tuple[int, int], spec: ModelSpec, rows: Any = slice(None)) -> Floats:
        """Boxes ``[..., n, 4]`` xyxy in pixels of the input from what a call gives for the points ``rows``."""
        centers, strides = decode.points(input_hw, spec.strides, spec.point_offset)
        distances = edges if self.network.config.regression != "distribution" else decode.integral(edges)
        return decode.boxes_from_distances(distances * strides[rows, None], centers[rows], input_hw)

    def seen(self, scores: Floats, boxes: Floats) -> Floats:
        """Scores ``[..., C]``, 0 where clipping has left nothing of a box ``[..., 4]``, as in exported graphs."""
        if self.network.config.regression != "delta":  # others hold their point, which lies in the input
            return scores
        return np.where((areas(boxes) <= 0)[..., None], np.float32(0), scores)

    def sigmas(self, edges: Floats, input_hw: tuple[int, int], spec: ModelSpec) -> Floats:
        """Standard deviations ``[..., A, 4]`` of the edges of all points in pixels of the input, from their logits."""
        return decode.deviation(edges) * decode.points(input_hw, spec.strides, spec.point_offset)[1][:, None]


class TorchBackend:
    """Runs a network in PyTorch for :class:`gfl_edge.detector.Detector`, so that every other step is the device's own.

    See :class:`gfl_edge.backends.base.Backend`.
    """

    def __init__(self, network: Network, spec: ModelSpec, device: torch.device) -> None:
        self.name, self.spec = "pytorch", spec
        self.max_batch: int | None = None
        self._predictor = Predictor(network, spec, device)

    def run(self, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """Boxes and scores of all points, and sigmas if the spec has them, as a graph without NMS gives them."""
        scores, edges = self._predictor(torch.from_numpy(images))
        input_hw = (images.shape[1], images.shape[2])
        boxes = self._predictor.boxes(edges, input_hw, self.spec)
        found = {"boxes": boxes, "scores": self._predictor.seen(scores, boxes)}
        if self.spec.edge_sigma:
            found[SIGMAS] = self._predictor.sigmas(edges, input_hw, self.spec)
        return found

    def describe(self) -> dict[str, str]:
        """Library, version and device."""
        return {"library": "torch", "version": torch.__version__, "device": str(self._predictor.device)}

    def close(self) -> None:
        """Nothing to free."""


class Validation:
    """AP on annotated images while training, shared among the processes.

    Args:
        config: of the data.
        annotations: checked.
        spec: classes, point grid and thresholds.
        process: this one.
        batch_size: images, per process.
        workers: processes that prepare batches.
    """

    def __init__(
        self,
        config: DataConfig,
        annotations: Annotations,
        spec: ModelSpec,
        process: Process,
        batch_size: int,
        workers: int = 0,
    ) -> None:
        self._spec, self._process, self._annotations = spec, process, annotations
        self._coco = as_coco(annotations.to_coco())
        self._batches = EvaluationLoader(
            config, annotations, batch_size, workers=workers, rank=process.rank, world_size=process.world_size
        )

    def __call__(self, network: Network) -> Metrics:
        """The twelve COCO numbers in percent, and "best_score" with its "F1", see :func:`best_score`.

        ``network`` is left in eval mode.
        """
        predictor = Predictor(network, self._spec, self._process.device)
        results: list[dict[str, Any]] = []
        lost: set[int] = set()  # of which nothing is known, rather than that nothing is in them
        for batch in track(self._batches, "  evaluating", len(self._batches), self._process.is_main):
            lost |= batch.lost.keys()
            scores, edges = predictor(batch.images)
            input_hw = (batch.images.shape[1], batch.images.shape[2])
            for i, (image_id, placement) in enumerate(zip(batch.image_ids, batch.placements, strict=True)):
                found = self._detections(predictor, scores[i], edges[i], input_hw, placement)
                results += coco_results(found, image_id, tuple(range(1, self._spec.num_classes + 1)))
        gathered, all_lost = gather(results, self._process), set().union(*gather(lost, self._process))
        metrics: Metrics = {}
        if self._process.is_main:
            if all_lost:
                logger.warning("%d images could not be read, AP is that of the others", len(all_lost))
            ids = [record.image_id for record in self._annotations.records if record.image_id not in all_lost]
            results = [result for result in itertools.chain(*gathered) if result["image_id"] not in all_lost]
            metrics = average_precision(self._coco, results, ids)
            metrics["best_score"], metrics["F1"] = best_score(self._coco, results, ids) or (None, None)
        return from_main(metrics, self._process)

    def _detections(
        self, predictor: Predictor, scores: Floats, edges: Floats, input_hw: tuple[int, int], placement: Placement
    ) -> Detections:
        spec = self._spec
        # Nothing but points that can be detected is decoded: of large inputs with few objects, a hundredth
        (rows,) = np.nonzero((scores > np.float32(spec.score_threshold)).any(axis=1))
        candidates = predictor.boxes(edges[rows], input_hw, spec, rows)
        boxes, kept_scores, classes = multiclass_nms(
            candidates,
            predictor.seen(scores[rows], candidates),
            score_threshold=spec.score_threshold,
            iou_threshold=spec.iou_threshold,
            max_candidates=spec.max_candidates,
            max_detections=spec.max_detections,
        )
        return Detections(placement.to_frame(boxes), kept_scores, classes, spec.class_names)


@enough_memory("Evaluate on another --device, or with a smaller --input-size")
def evaluate_checkpoint(
    weights: Path,
    images: Path,
    annotations: Path,
    *,
    wanted: Wanted | None = None,
    limit: int | None = None,
    device: str = "auto",
    on_bad: OnBad = "error",
    uncertainty: bool = False,
) -> dict[str, Any]:
    """Evaluate a checkpoint through the pipeline of the run time, the network in PyTorch.

    Args:
        weights: checkpoint of ours, or of another project that :func:`train.weights.loading.load_detector` reads.
        images: folder of the annotation file's ``file_name`` entries.
        annotations: COCO instances JSON; categories are matched by name.
        wanted: what counts before anything that a file says.
        limit: only the first so many images.
        device: see :func:`train.distributed.joined`.
        on_bad: see :func:`gfl_edge.annotations.checks.check_annotations`.
        uncertainty: whether the standard deviations of edges are judged, too.

    Returns:
        Plain values as ``gfl-edge eval`` reports them, without the environment.

    Raises:
        GflEdgeError: see :func:`gfl_edge.evaluation.ap.evaluate` and :func:`train.weights.loading.load_detector`.
    """
    network, spec = load_described(weights, wanted or Wanted())
    if uncertainty:
        spec = with_sigmas(network, spec, str(weights))
    with joined(device) as process:
        detector = Detector(TorchBackend(network.to(process.device), spec, process.device))
        result = evaluate(detector, images, annotations, limit, on_bad=on_bad)
    return {
        **result.to_dict(),
        "model": {
            "name": spec.name,
            "file": weights.name,
            "sha256": spec.source_sha256,
            "precision": spec.precision,
            "nms": "host",
            "score_threshold": spec.score_threshold,
            "iou_threshold": spec.iou_threshold,
        },
        "backend": {"name": detector.backend.name, **detector.backend.describe()},
        "annotations": annotations.name,
    }
