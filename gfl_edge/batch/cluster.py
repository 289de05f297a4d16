"""Chunks of images on Ray Data: detectors as actors, each with cores or a GPU of its own, on one machine or many.

Ray Data hands chunks to the actors, starts an actor again whose process was killed, and gives its chunk to another.
What is finished comes back to this process, which alone writes: so a chunk that was begun twice is written once.
"""

from __future__ import annotations

import io
import itertools
import json
import logging
import os
import re
import socket
import tempfile
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gfl_edge import optional
from gfl_edge._version import __version__
from gfl_edge.backends.nms import NmsChoice
from gfl_edge.backends.onnx_cpu import CORES_VARIABLE
from gfl_edge.backends.select import BackendName
from gfl_edge.batch.chunks import ChunkDetector
from gfl_edge.batch.listing import Chunk, Listing
from gfl_edge.batch.source import Source, is_address
from gfl_edge.detector import Detector
from gfl_edge.engine.sidecar import sidecar_path
from gfl_edge.errors import BackendError, GflEdgeError, InputError
from gfl_edge.filters.detection_filter import DetectionFilter
from gfl_edge.redact import redact
from gfl_edge.terminal.printable import printable_line

LOCAL = "local"  # as an address: a Ray of its own, on this machine, for as long as the run takes
# Chunks that Ray holds at a time, with all their names, before its workers start anew for others
WAVE, WAVE_BY_WORKER = 1000, 20
MAX_ATTEMPTS = 3  # at a chunk, before its images are taken for what kills the workers
# Of a local Ray: its store is for names and results, both small
OWN = {"include_dashboard": False, "object_store_memory": 256 << 20}
# Ray reports its use to its maker's server unless it is told not to
ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
_COLOR = re.compile(r"\x1b\[[0-9;]*m")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cluster:
    """Workers of Ray.

    Attributes:
        address: as Ray has it: ``ray://HOST:10001``, ``HOST:6379``, "auto"; or "local".
        workers: detectors at a time; None: as many as there is room for.
        cpus: cores of each.
        gpus: of each; a part of one where several share it.
    """

    address: str
    workers: int | None = None
    cpus: int = 1
    gpus: float = 0.0


@dataclass(frozen=True)
class Job:
    """What each worker has to know, beside the model's files.

    Attributes:
        version: of gfl_edge, which has to be the same everywhere.
        model: name of the model's file.
        backend: what runs it.
        nms: where NMS runs.
        keep: which detections count.
        source: of the images.
        cpus: cores that a worker may take.
    """

    version: str
    model: str
    backend: BackendName
    nms: NmsChoice
    keep: DetectionFilter
    source: Source
    cpus: int


def parts_by_ray(
    cluster: Cluster,
    listing: Listing,
    chunks: Iterable[Chunk],
    model: Path,
    job: Job,
) -> Generator[tuple[Chunk, bytes], None, None]:
    """The part of each chunk, as it is finished.

    Raises:
        InputError: no cluster answers, it has no room for a worker, or the source is not there for its workers.
        BackendError: a chunk that kills its workers, or the cluster is gone.
        MissingDependencyError: Ray is not installed.
    """
    if job.source.is_memory:
        raise InputError(f"{job.source.text} is in the memory of this process, where the workers of Ray cannot read it")
    with redirect_stdout(_Told()), _connected(cluster.address) as ray:
        workers = _room(ray, cluster)
        files = [path for path in (model, sidecar_path(model)) if path.is_file()]
        desk = ray.remote(num_cpus=0)(Desk).remote({path.name: path.read_bytes() for path in files})
        conductor = ray.remote(num_cpus=0)(Conductor).remote()
        waiting = iter(chunks)
        while wave := list(itertools.islice(waiting, max(WAVE, WAVE_BY_WORKER * workers))):
            by_index = {chunk.index: chunk for chunk in wave}
            work = [(chunk.index, json.dumps(listing.names(chunk), allow_nan=False)) for chunk in wave]
            started = conductor.start.remote(work, replace(cluster, workers=min(workers, len(wave))), (job, desk))
            ray.get(started)
            while by_index:
                index, part, failure = ray.get(conductor.next.remote())
                if failure:
                    raise _failure(failure, listing, by_index[index])
                yield by_index.pop(index), part


class Conductor:
    """Runs Ray Data inside of the cluster, since it does not run where only Ray's client is (``ray://``)."""

    def __init__(self) -> None:
        self._rows: Iterator[dict[str, Any]] = iter(())

    def start(self, work: list[tuple[int, str]], cluster: Cluster, arguments: tuple[Any, ...]) -> None:
        """Begin a wave of chunks, by index and JSON of names: a block each, so that workers get them one by one."""
        data, arrow = optional.load("ray.data"), optional.load("pyarrow")
        data.DataContext.get_current().enable_progress_bars = False
        blocks = [arrow.table({"index": [index], "names": [names]}) for index, names in work]
        found = data.from_arrow(blocks).map_batches(
            Worker,
            batch_size=1,
            compute=data.ActorPoolStrategy(size=cluster.workers),
            fn_constructor_args=arguments,
            num_cpus=cluster.cpus,
            num_gpus=cluster.gpus or None,
        )
        self._rows = iter(found.iter_rows())

    def next(self) -> tuple[int, bytes, str]:
        """The next chunk that is finished, as :class:`Worker` gives it; waits for it."""
        row = next(self._rows)
        return row["index"], row["part"], row["error"]


class Desk:
    """What all workers ask, in a process of its own, which no image kills.

    Args:
        files: the content of the model's files, by name.
    """

    def __init__(self, files: dict[str, bytes]) -> None:
        self._files = files
        self._begun: dict[int, int] = {}

    def files(self) -> dict[str, bytes]:
        """The model's."""
        return self._files

    def begin(self, index: int) -> int:
        """A chunk is begun; how often it was by now."""
        self._begun[index] = self._begun.get(index, 0) + 1
        return self._begun[index]


class Worker:
    """A detector in a process of Ray: a batch of one chunk in, its part out.

    Args:
        job: what to do.
        desk: handle of a :class:`Desk`.
    """

    def __init__(self, job: Job, desk: Any) -> None:
        self._ray, self._desk, self._failure = optional.load("ray"), desk, ""
        os.environ[CORES_VARIABLE] = str(job.cpus)
        try:
            self._chunks = ChunkDetector(self._opened(job, self._ray.get(desk.files.remote())), job.keep, job.source)
        except GflEdgeError as error:  # told by the first chunk: an actor that does not start is started for ever
            self._failure = str(error)

    def _opened(self, job: Job, content: dict[str, bytes]) -> Detector:
        node = self._ray.util.get_node_ip_address()
        if job.version != __version__:
            raise InputError(f"gfl_edge is {__version__} on the node {node} and {job.version} here: install the same")
        folder = job.source.base
        if job.source.listed is None and not is_address(folder) and not os.path.isdir(folder):  # noqa: PTH112
            raise InputError(
                f"{folder} is not on the node {node}: workers read images themselves. Put them where all nodes have "
                "them at the same path, or give an address such as s3://bucket/folder"
            )
        with tempfile.TemporaryDirectory() as temporary:
            for name, file in content.items():
                (Path(temporary) / name).write_bytes(file)
            return Detector(Path(temporary) / job.model, job.backend, job.nms, "throughput")

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """``index`` and ``names`` of a chunk to ``index``, ``part`` and ``error``, of which one is empty."""
        index, part, failure = int(batch["index"][0]), b"", self._failure
        begun = self._ray.get(self._desk.begin.remote(index))
        if begun > MAX_ATTEMPTS:
            failure = f"one of its images killed its worker {MAX_ATTEMPTS} times"
        if not failure:
            try:
                part = self._chunks.part(json.loads(str(batch["names"][0])))
            except GflEdgeError as error:
                failure = str(error)
        return {"index": [index], "part": [part], "error": [failure]}


@contextmanager
def _connected(address: str) -> Iterator[Any]:
    """Ray, connected, quiet, and without the report of its use; what Ray raises becomes a GflEdgeError."""
    os.environ.update(ENVIRONMENT)
    ray = optional.load("ray")
    try:
        with _occupied_port() as port:
            own = {**OWN, "dashboard_port": port} if address == LOCAL else {}
            ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL, **own)
    except (ConnectionError, RuntimeError, ValueError, ImportError) as error:
        raise InputError(
            f"no cluster of Ray can be used at {redact(address)} ({_words(error)}). Start one with: "
            "RAY_USAGE_STATS_ENABLED=0 ray start --head, or give --address local"
        ) from error
    try:
        yield ray
    except (ray.exceptions.RayError, ConnectionError) as error:
        raise BackendError(f"Ray: {_words(error)}. Give the same command again to go on where this run was") from error
    finally:
        ray.shutdown()


@contextmanager
def _occupied_port() -> Iterator[int]:
    """A port that cannot be taken, for the process of the dashboard.

    Ray starts it without the dashboard, too, and whatever is said of reports it then asks for the clouds' addresses to
    find out which of them this is. Without a port it is left out.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


class _Told(io.TextIOBase):
    """What Ray prints from a thread of its own, such as that a worker died, for the log: stdout is for the result."""

    def write(self, text: str) -> int:
        """Log each line."""
        for line in text.splitlines():
            if words := _COLOR.sub("", line).strip():
                logger.warning("Ray: %s", words)
        return len(text)


def _room(ray: Any, cluster: Cluster) -> int:
    """How many workers to start.

    Raises:
        InputError: no node has room for one.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    fitting = [
        int(min(node.get("CPU", 0) / cluster.cpus, node.get("GPU", 0) / cluster.gpus if cluster.gpus else float("inf")))
        for node in nodes
    ]
    if not any(fitting):
        there = ", ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
        raise InputError(
            f"a worker takes {cluster.cpus} CPUs and {cluster.gpus:g} GPUs, but the nodes have {there or 'none'}: give "
            "other --worker-cpus and --worker-gpus"
        )
    return min(sum(fitting), cluster.workers or sum(fitting))


def _failure(words: str, listing: Listing, chunk: Chunk) -> GflEdgeError:
    names = listing.names(chunk)
    return BackendError(f"{words} (images {names[0]} to {names[-1]}, part {chunk.index})")


def _words(error: BaseException) -> str:
    """What Ray says, in a line: its messages end with traces of remote processes."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return redact(printable_line(lines[-1] if lines else type(error).__name__))
