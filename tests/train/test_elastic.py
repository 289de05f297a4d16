"""A run on two nodes, of which one is killed and comes back: two agents of torchrun on loopback."""

from __future__ import annotations

import csv
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from gfl_edge.files import write_atomically
from tests.support import gated_training
from tests.support.squares_run import losses
from train.checkpoint import LAST, Checkpoint
from train.config import read_config
from train.run import train

PATIENCE_S = 240  # on a machine that does other work
# 8 images, a batch of 3: the two processes take two and one of them, and an epoch has two steps
SETTINGS = ["train.batch=3", "train.epochs=6", "train.evaluate_every=2"]


class Node:
    """An agent of torchrun with one process, and what they print."""

    def __init__(self, name: str, port: int, words: list[str]) -> None:
        self.output, self.log = Path(f"{name}.out"), Path(f"{name}.log")
        agent = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "1:2", "--nproc-per-node", "1"]
        agent += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", "elastic"]
        host = str(name == "stays").lower()  # all are on this machine; whoever is first would keep the rendezvous
        agent += ["--rdzv-conf", f"last_call_timeout=4,keep_alive_interval=1,is_host={host}"]
        agent += ["--local-addr", "127.0.0.1"]
        agent += ["--max-restarts", "3", "--monitor-interval", "0.1", gated_training.__file__, *words]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
        environment["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"  # see docs/cluster.md
        with self.output.open("wb") as out, self.log.open("wb") as log:
            self.process = subprocess.Popen(agent, env=environment, stdout=out, stderr=log)

    def kill(self) -> None:
        """The node is gone at once, as without power."""
        psutil = pytest.importorskip("psutil")
        for process in (psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)):
            process.kill()
        self.process.wait()


def wait_until(condition, nodes) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        logs = "\n".join(node.log.read_text() for node in nodes)
        assert all(node.process.poll() is None for node in nodes), logs
        assert time.monotonic() < end, logs
        time.sleep(0.05)


def starts(nodes: list[Node], words: str) -> bool:
    """Whether a run starts or goes on in a certain way, as the first process says, on whichever node it is."""
    return any(line.endswith(words) for node in nodes for line in node.log.read_text().splitlines())


@pytest.mark.slow
def test_a_node_is_killed_and_comes_back(toml):
    whole = train(read_config(toml, [*SETTINGS, 'train.output="whole"']))
    gate = Path("gate").absolute()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    words = [str(gate), str(toml), "--auto-resume", "--set", *SETTINGS, 'train.output="parts"']
    write_atomically(gate, b"0")
    stays, goes = nodes = [Node(name, port, words) for name in ("stays", "goes")]
    try:
        write_atomically(gate, b"5")
        table = Path("parts/losses.csv")
        wait_until(lambda: table.is_file() and len(table.read_text().splitlines()) == 6, nodes)
        goes.kill()  # after step 5; the checkpoint of the second epoch has 4
        write_atomically(gate, b"7")
        wait_until(lambda: starts([stays], "on 1 x cpu, going on after step 4"), [stays])
        wait_until(lambda: len(losses("parts")) == 7, [stays])
        comes = Node("comes", port, words)
        nodes.append(comes)
        wait_until(lambda: starts([stays, comes], "on 2 x cpu, going on after step 6"), [stays, comes])
        write_atomically(gate, b"99")
        for node in (stays, comes):
            assert node.process.wait(PATIENCE_S) == 0, node.log.read_text()
    finally:
        for node in nodes:
            if node.process.poll() is None:
                node.kill()
    assert_same_run("parts", "whole")
    printed = [node.output.read_text() for node in nodes]
    assert [json.loads(text) for text in printed if text] == [pytest.approx(whole, abs=0.01)]


def assert_same_run(found: str, expected: str) -> None:
    """Each step and each evaluation once, with the same losses, metrics and weights."""
    for name, steps in (("losses.csv", range(1, 13)), ("metrics.csv", (4, 8, 12))):
        rows = [list(csv.DictReader((Path(folder) / name).open())) for folder in (found, expected)]
        assert [int(row["step"]) for row in rows[0]] == list(steps)
        for ours, theirs in zip(*rows, strict=True):
            for column in ours.keys() - {"images_per_s"}:
                assert float(ours[column] or -1) == pytest.approx(float(theirs[column] or -1), rel=1e-3, abs=1e-2), (
                    column
                )
    assert losses(found) == pytest.approx(losses(expected), rel=1e-4)
    ours, theirs = (Checkpoint.load(Path(folder) / LAST) for folder in (found, expected))
    assert len(ours.training["random"]) == 2
    for key, value in theirs.state_dict.items():
        torch.testing.assert_close(ours.state_dict[key], value, rtol=1e-3, atol=1e-4)
