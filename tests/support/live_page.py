"""A camera that runs in a thread, and its live page."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterable
from typing import Any

from gfl_edge.camera import run_camera
from gfl_edge.camera.summary import CameraSummary
from gfl_edge.media.sources import FrameSource
from gfl_edge.web.page import LivePage
from tests.support.fake_detector import FakeDetector


class Running:
    """A run of ``sources`` with a page, from entering to leaving; ``summary`` and ``error`` are there afterwards."""

    def __init__(self, page: LivePage, *sources: FrameSource, **settings: Any) -> None:
        self.page, self.sources, self.settings = page, sources, settings
        self.summary: CameraSummary | None = None
        self.error: BaseException | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="a run", daemon=True)

    def _run(self) -> None:
        try:
            self.summary = run_camera(
                FakeDetector(), self.sources, show=False, serve=self.page, on_frame=self._look, **self.settings
            )
        except BaseException as error:
            self.error = error

    def _look(self, *_: object) -> None:
        if self._over.is_set():
            raise KeyboardInterrupt

    def __enter__(self) -> Running:
        self.page.__enter__()
        self._thread.start()
        wait_until(lambda: self.page.live.phase != "starting" and any(self.page.live.frames))
        return self

    def stop(self) -> None:
        self._over.set()
        self._thread.join(20)

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.page.__exit__(None, None, None)

    def get(self, path: str, method: str = "GET", **headers: str) -> Reply:
        return ask(self.page, path, method, **headers)

    def stats(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.get("/stats.json").body)
        return found

    def delivered(self) -> int:
        return sum(frame.number for frame in self.page.live.frames if frame)


class Reply:
    def __init__(self, answer: http.client.HTTPResponse) -> None:
        self.status, self.body = answer.status, answer.read()
        self.headers = {name.lower(): value for name, value in answer.getheaders()}


def ask(page: LivePage, path: str, method: str = "GET", **headers: str) -> Reply:
    """One request, on a connection of its own; underscores in names of headers stand for hyphens."""
    connection = http.client.HTTPConnection("127.0.0.1", page.address.port, timeout=20)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, headers=named)
        return Reply(connection.getresponse())
    finally:
        connection.close()


def connect(page: LivePage, *sent: bytes) -> socket.socket:
    """A raw connection to it, on which this was sent; it takes little at once."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.settimeout(20)
    raw.connect(("127.0.0.1", page.address.port))
    for part in sent:
        raw.sendall(part)
    return raw


def closed_within(raw: socket.socket, seconds: float) -> bool:
    """Whether the other side closes the connection within so many seconds."""
    raw.settimeout(0.2)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if not raw.recv(65536):
                return True
        except TimeoutError:
            continue
        except OSError:
            return True
    return False


def wait_until(holds: Any, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it does not come to be"
        time.sleep(0.01)


def close_all(sockets: Iterable[socket.socket]) -> None:
    for raw in sockets:
        raw.close()
