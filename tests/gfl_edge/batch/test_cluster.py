"""Workers of Ray on this machine: the file is that of a run without them, whoever is killed."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gfl_edge.batch.cluster import MAX_ATTEMPTS, Cluster, Desk, Job, Worker, _room, _Told
from gfl_edge.batch.rows import read_counts
from gfl_edge.batch.run import Batch, run_batch
from gfl_edge.batch.source import find_source
from gfl_edge.errors import InputError
from gfl_edge.filters import DetectionFilter
from tests.support.batch_run import start_batch, tiny_model  # noqa: F401
from tests.support.media_files import make_image
from tests.support.watched_network import WATCH, contacts

for needed in ("pyarrow", "fsspec", "onnxruntime"):
    pytest.importorskip(needed, reason=f"{needed} is not installed (extras parquet, cpu)")

COUNT = 24
OPTIONS = ("--backend", "onnxruntime", "--score", "0", "--chunk", "1")
ON_RAY = ("--address", "local", "--workers", "2")


def needs_ray() -> None:
    pytest.importorskip("ray", reason="Ray is not installed (extra bulk)")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(COUNT):
        make_image(folder / f"{number:03}.png", int(rng.integers(0, 256)), (20, 30 + number))
    (folder / "011.png").write_bytes(b"damaged")
    return folder


@pytest.fixture
def whole(images: Path, tiny_model: Path, tmp_path: Path) -> bytes:  # noqa: F811
    """What the file has to be."""
    keep = DetectionFilter(score=0.0)
    batch = Batch("in", tmp_path / "whole.parquet", tiny_model, "onnxruntime", keep=keep, chunk=1)
    here = Path.cwd()
    os.chdir(tmp_path)
    try:
        assert run_batch(batch).images == COUNT
    finally:
        os.chdir(here)
    return batch.output.read_bytes()


def processes(title: str, folder: Path) -> list[int]:
    """The processes of that title that were started with an environment that names the folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if title.encode() in (path / "cmdline").read_bytes() and bytes(folder) in (path / "environ").read_bytes():
                found.append(int(path.name))
        except (OSError, ValueError):
            continue
    return found


def own_address() -> str:
    """Of this machine in its network; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])


def wait_for(what: Callable[[], Any], seconds: float = 400) -> Any:
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
    return found


@pytest.fixture
def slowed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Workers that take a tenth of a second for each chunk, and are watched, by a module that Python imports first."""
    (tmp_path / "slow").mkdir()
    text = """
import importlib.util, sys
class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "gfl_edge.batch.chunks":
            sys.meta_path.remove(self)
            spec = importlib.util.find_spec(name)
            run = spec.loader.exec_module
            def exec_module(module):
                run(module)
                part = module.ChunkDetector.part
                def slow(*arguments):
                    import time
                    time.sleep(0.1)
                    return part(*arguments)
                module.ChunkDetector.part = slow
            spec.loader.exec_module = exec_module
            return spec
sys.meta_path.insert(0, Slow())
"""
    watch = (WATCH / "sitecustomize.py").read_text()
    (tmp_path / "slow" / "sitecustomize.py").write_text(f"{watch}\n{text}")
    monkeypatch.setenv("GFL_EDGE_WATCHED", str(tmp_path / "watched"))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'slow'}:{os.environ.get('PYTHONPATH', '')}")


@pytest.mark.slow
def test_killed_workers_and_a_killed_driver_lose_and_double_nothing(
    tmp_path: Path,
    images: Path,
    whole: bytes,
    tiny_model: Path,  # noqa: F811
    slowed: None,
) -> None:
    needs_ray()
    words = ["in", "-o", "out.parquet", "--model", tiny_model, *OPTIONS, *ON_RAY]

    def parts() -> int:
        return len(list((tmp_path / "out.parquet.parts").glob("part-*")))

    driver = start_batch(words, tmp_path)
    wait_for(lambda: parts() >= 2)
    workers = wait_for(lambda: processes("ray::MapWorker", tmp_path))
    os.kill(workers[0], signal.SIGKILL)
    before = parts()
    wait_for(lambda: parts() >= before + 4)
    driver.kill()
    driver.communicate(timeout=60)
    assert not (tmp_path / "out.parquet").exists()
    done = parts()
    assert 0 < done < COUNT
    wait_for(lambda: not processes("ray::MapWorker", tmp_path))
    again = start_batch(words, tmp_path)
    wait_for(lambda: parts() > done or again.poll() is not None)
    os.kill(wait_for(lambda: processes("ray::MapWorker", tmp_path))[0], signal.SIGKILL)
    out, err = again.communicate(timeout=400)
    assert again.returncode == 0, err[-3000:]
    assert json.loads(out)["resumed"] == done, "stdout holds the summary alone"
    assert (tmp_path / "out.parquet").read_bytes() == whole
    assert not (tmp_path / "out.parquet.parts").exists()
    # Ray's processes reach each other by the address of this machine
    assert {line.split()[1] for line in contacts(tmp_path / "watched")} <= {own_address()}


class Remote:
    """What stands for a reference of Ray, and for the handle of an actor whose calls give such."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def __getattr__(self, name: str) -> Any:
        class Method:
            remote = staticmethod(getattr(self._actor, name))

        return Method


@pytest.fixture
def worker(images: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Worker]:  # noqa: F811
    """Makes a worker in this process, on a Ray that only hands things on."""

    class Util:
        get_node_ip_address = staticmethod(lambda: "10.0.0.1")

    class Ray:
        __file__ = "ray.py"
        get = staticmethod(lambda reference: reference)
        util = Util

    monkeypatch.setitem(sys.modules, "ray", Ray)
    monkeypatch.setenv("GFL_EDGE_CORES", "1")

    source = find_source(str(images))

    def make(**changes: Any) -> Worker:
        from gfl_edge import __version__

        about = {"version": __version__, "model": "tiny.onnx", "backend": "onnxruntime", "nms": "auto", "cpus": 1}
        about |= {"keep": DetectionFilter(score=0.0), "source": source, **changes}
        return Worker(Job(**about), Remote(Desk({"tiny.onnx": tiny_model.read_bytes()})))

    return make


def batch(index: int, *names: str) -> dict[str, Any]:
    return {"index": np.array([index]), "names": np.array([json.dumps(names)])}


def test_a_worker_makes_the_part_of_its_chunk(worker: Callable[..., Worker]) -> None:
    made = worker()(batch(3, "000.png", "011.png"))
    assert (made["index"], made["error"]) == ([3], [""])
    counts = read_counts(io.BytesIO(made["part"][0]))
    assert counts is not None
    assert (counts.images, counts.failed) == (2, 1)


def test_an_image_that_kills_its_workers_ends_the_run(worker: Callable[..., Worker]) -> None:
    one = worker()
    errors = [one(batch(3, "000.png"))["error"][0] for _ in range(MAX_ATTEMPTS + 1)]
    assert errors == [""] * MAX_ATTEMPTS + [f"one of its images killed its worker {MAX_ATTEMPTS} times"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"version": "0.0.1"}, r"gfl_edge is \S+ on the node 10.0.0.1 and 0.0.1 here"),
        ({"nms": "nonsense"}, "unknown choice 'nonsense'"),
    ],
)
def test_a_worker_that_cannot_start_says_why(worker: Callable[..., Worker], changes: Any, says: str) -> None:
    assert re.search(says, worker(**changes)(batch(0, "000.png"))["error"][0])


def test_a_folder_that_is_not_there_is_no_million_of_errors(worker: Callable[..., Worker], images: Path) -> None:
    images.rename(images.with_name("gone"))
    assert "workers read images themselves" in worker()(batch(0, "000.png"))["error"][0]


def test_workers_have_to_fit() -> None:
    class Ray:
        @staticmethod
        def nodes() -> list[dict[str, Any]]:
            resources = [{"CPU": 4.0}, {"CPU": 8.0, "GPU": 2.0}, {"CPU": 64.0, "GPU": 8.0}]
            return [{"Alive": n < 2, "Resources": found} for n, found in enumerate(resources)]

    found = {
        Cluster("auto"): 12,
        Cluster("auto", cpus=3): 3,
        Cluster("auto", gpus=1): 2,
        Cluster("auto", gpus=0.5): 4,
        Cluster("auto", workers=5): 5,
        Cluster("auto", workers=50, cpus=8): 1,
    }
    assert {cluster: _room(Ray, cluster) for cluster in found} == found
    with pytest.raises(InputError, match="a worker takes 9 CPUs and 0 GPUs, but the nodes have 4 CPUs and 0 GPUs, 8 "):
        _room(Ray, Cluster("auto", cpus=9))


def test_what_ray_prints_is_told_and_no_result(caplog: pytest.LogCaptureFixture) -> None:
    print("\x1b[33m(raylet)\x1b[0m A worker died\n", file=_Told())
    assert caplog.messages == ["Ray: (raylet) A worker died"]


def test_memory_is_not_for_workers(tmp_path: Path, tiny_model: Path) -> None:  # noqa: F811
    needs_ray()
    import fsspec

    with fsspec.open("memory://cluster/a.png", "wb") as file:
        file.write(b"x")
    with pytest.raises(InputError, match="where the workers of Ray cannot read it"):
        run_batch(Batch("memory://cluster", tmp_path / "o.parquet", tiny_model, cluster=Cluster("local")))
