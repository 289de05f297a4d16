"""Detect in millions of images, so that a stop at any moment loses and doubles nothing.

source.py     folder, list or address: names of images, in one order
listing.py    into a file, cut into chunks of 1000, each with a digest of all that its result depends on
chunks.py     a chunk in, its part out: read ahead, detect, filter, encode
              in this process, or by many workers of a cluster of Ray (cluster.py)
parts.py      a file for each chunk, under its digest; joined in order when all are there
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gfl_edge import optional
from gfl_edge._version import __version__
from gfl_edge.backends.nms import NmsChoice
from gfl_edge.backends.select import BackendName
from gfl_edge.batch.chunks import ChunkDetector
from gfl_edge.batch.cluster import Cluster, Job, parts_by_ray
from gfl_edge.batch.listing import Chunk, Listing, write_listing
from gfl_edge.batch.parts import Parts
from gfl_edge.batch.rows import Counts
from gfl_edge.batch.source import Source, find_source
from gfl_edge.detector import Detector
from gfl_edge.engine.sidecar import Sidecar
from gfl_edge.errors import InputError, SourceError
from gfl_edge.files import sha256
from gfl_edge.filters.detection_filter import DetectionFilter
from gfl_edge.progress import progress_bar
from gfl_edge.redact import shown_source
from gfl_edge.spec import ModelSpec, read_spec
from gfl_edge.zoo.bundled import bundled_model

DEFAULT_CHUNK = 1000  # images
FORMAT = 1  # of parts; those of another are made anew

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BatchSummary:
    """What a run found.

    Attributes:
        output: the file of the result.
        images: rows in it.
        failed: images that cannot be used; the column ``error`` says why.
        detections: that count.
        invalid: candidates of the model that can be no detections; they were left out.
        resumed: images that an earlier run had finished.
    """

    output: Path
    images: int
    failed: int
    detections: int
    invalid: int
    resumed: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**dataclasses.asdict(self), "output": str(self.output)}


@dataclass(frozen=True)
class Batch:
    """What to do.

    Attributes:
        source: a folder with those in it, a list of images, or an address of fsspec of either, see
            :func:`gfl_edge.batch.source.find_source`.
        output: Parquet file; see :func:`gfl_edge.batch.rows.schema` for its columns.
        model: ``.onnx`` or ``.engine`` file; None: the bundled detector.
        backend: what runs it.
        nms: where NMS runs.
        keep: which detections count; None: those from the score on that the model recommends.
        root: what relative paths in a list start from; None: the folder of the list.
        chunk: images that are written together, and that a worker does again after it was killed.
        cluster: workers of Ray; None: this process, with all cores or the GPU.
    """

    source: str
    output: Path
    model: Path | None = None
    backend: BackendName = "auto"
    nms: NmsChoice = "auto"
    keep: DetectionFilter | None = None
    root: str | None = None
    chunk: int = DEFAULT_CHUNK
    cluster: Cluster | None = None


def run_batch(batch: Batch) -> BatchSummary:
    """Detect in all images, with progress on stderr, and write the result.

    The file is written at the end; until then the parts that are finished are in a folder beside it, and a run that was
    stopped, however that was, goes on with them when it is given again. Parts of images that changed, of another model
    or other options are made anew.

    Raises:
        SourceError: there are no images, they cannot be listed, or none of them can be used; then the result is
            written nevertheless.
        InputError: ``keep`` does not fit the model, or no cluster can be used.
        OutputError: the result cannot be written, or is being written by another run.
        BackendError: what runs the model or the cluster failed.
    """
    optional.load("pyarrow.parquet")
    if batch.cluster is not None:
        optional.load("ray")
    source, model = find_source(batch.source, batch.root), batch.model or bundled_model()
    if source.listed is not None and os.path.realpath(source.listed) == os.path.realpath(batch.output):
        raise InputError(f"{batch.output} is the list of the images: choose another name for the result")
    spec = Sidecar.read(model).spec if model.suffix == ".engine" else read_spec(model)
    keep = (batch.keep or DetectionFilter()).for_model(spec)
    keep.check_sources(1)
    about = _about(batch, source, model, spec, keep)
    with Parts(batch.output) as parts:
        listing = write_listing(parts.listing, source.entries(), batch.chunk, json.dumps(about, allow_nan=False))
        if not listing.count:
            raise SourceError(f"{shown_source(batch.source)} holds no images")
        counts, resumed = _made(batch, source, model, keep, parts, listing)
        parts.join(listing.chunks, spec.edge_sigma, about)
        parts.remove()
    if counts.failed == counts.images:
        raise SourceError(
            f"none of {counts.images} images can be used: {counts.reason}. {batch.output} says why, for each of them"
        )
    if counts.failed:
        logger.warning("%d of %d images cannot be used: the column error says why", counts.failed, counts.images)
    return BatchSummary(batch.output, counts.images, counts.failed, counts.detections, counts.invalid, resumed)


def _about(batch: Batch, source: Source, model: Path, spec: ModelSpec, keep: DetectionFilter) -> dict[str, Any]:
    """What the result depends on beside the images: its metadata, and part of what parts are known by."""
    return {
        "gfl_edge_version": __version__,
        "gfl_edge_format": str(FORMAT),
        "source": source.shown_text,
        "root": None if batch.root is None else shown_source(batch.root),
        "model": {"name": spec.name, "file": model.name, "precision": spec.precision},
        "model_sha256": sha256(model),
        "backend": batch.backend,
        "nms": batch.nms,
        "class_names": list(spec.class_names),
        "filter": json.loads(json.dumps(dataclasses.asdict(keep), default=float, allow_nan=False)),
    }


def _made(
    batch: Batch, source: Source, model: Path, keep: DetectionFilter, parts: Parts, listing: Listing
) -> tuple[Counts, int]:
    """Make the parts that are missing; what is in all of them, and how many images are in those that were there."""
    finished = parts.finished(listing.chunks)
    pending = [chunk for chunk in listing.chunks if chunk.index not in finished]
    resumed = listing.count - sum(chunk.count for chunk in pending)
    if resumed:
        logger.info("going on with a run that was stopped: %d of %d images are done", resumed, listing.count)
    with progress_bar("detect", listing.count, done=resumed, unit="image") as bar:
        if batch.cluster is None:
            made = _parts_here(batch, source, model, keep, listing, pending, bar.update)
        else:
            job = Job(__version__, model.name, batch.backend, batch.nms, keep, source, batch.cluster.cpus)
            made = parts_by_ray(batch.cluster, listing, pending, model, job)
        with closing(made):
            for chunk, part in made:
                counts = finished[chunk.index] = parts.add(chunk, part)
                if batch.cluster is not None:
                    bar.update(chunk.count)
                if len(finished) == 1 and counts.failed == counts.images > 1:
                    logger.warning("none of the first %d images can be used: %s", counts.images, counts.reason)
    return sum(finished.values(), Counts()), resumed


def _parts_here(
    batch: Batch,
    source: Source,
    model: Path,
    keep: DetectionFilter,
    listing: Listing,
    chunks: Sequence[Chunk],
    progress: Callable[[], object],
) -> Generator[tuple[Chunk, bytes], None, None]:
    """The part of each chunk, in this process."""
    if not chunks:
        return
    with Detector(model, batch.backend, batch.nms, "throughput") as detector:
        worker = ChunkDetector(detector, keep, source)
        for chunk in chunks:
            yield chunk, worker.part(listing.names(chunk), progress)
