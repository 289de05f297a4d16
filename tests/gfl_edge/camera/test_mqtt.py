"""Detections over MQTT, as docs/streams.md has it: mosquitto's own broker and clients around the command."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.media_files import lines_of, make_video

CHECKOUT = Path(__file__).resolve().parents[3]
PATH = f"{os.environ['PATH']}:/usr/sbin"
CAMERA = f"{sys.executable} -m gfl_edge camera --source in.avi --headless --json-lines -"

pytestmark = pytest.mark.slow


@pytest.fixture
def port() -> Iterator[int]:
    """Of a broker on loopback."""
    for program in ("mosquitto", "mosquitto_pub", "mosquitto_sub"):
        if shutil.which(program, path=PATH) is None:
            pytest.skip(f"there is no {program}: apt-get install mosquitto mosquitto-clients")
    with socket.create_server(("127.0.0.1", 0)) as free:
        number = free.getsockname()[1]
    broker = subprocess.Popen(["mosquitto", "-p", str(number)], env={"PATH": PATH}, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 20
    while not answers(number) and time.monotonic() < deadline:
        time.sleep(0.05)
    yield number
    broker.kill()
    broker.wait()


def answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PATH": PATH, "PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1"}
    words = ["bash", "-o", "pipefail", "-c", command]
    return subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=False)


def test_every_line_is_a_message(tmp_path: Path, port: int) -> None:
    make_video(tmp_path / "in.avi", frames=20)
    words = ["mosquitto_sub", "-p", str(port), "-t", "cameras/#", "-C", "20", "-q", "1"]
    with (tmp_path / "got.jsonl").open("wb") as got:
        reader = subprocess.Popen(words, env={"PATH": PATH}, stdout=got)
    time.sleep(1)  # until it has subscribed
    ran = shell(f"{CAMERA} | tee sent.jsonl | mosquitto_pub -p {port} -t cameras/door -q 1 -l", tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert reader.wait(20) == 0
    assert lines_of(tmp_path / "got.jsonl") == lines_of(tmp_path / "sent.jsonl")
    assert [line["frame"] for line in lines_of(tmp_path / "got.jsonl")] == list(range(20))
    assert '"frames": 20' in ran.stderr, "the summary is no message"


def test_where_there_is_no_broker_the_camera_ends_with_its_reader(tmp_path: Path, port: int) -> None:
    make_video(tmp_path / "in.avi", frames=20)
    ran = shell(f"{CAMERA} | mosquitto_pub -p 9 -t cameras/door -l", tmp_path)
    assert ran.returncode != 0
    assert "Traceback" not in ran.stderr
    assert "Connection refused" in ran.stderr
