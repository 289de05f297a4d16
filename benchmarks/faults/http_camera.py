"""A camera over HTTP on loopback, which does what the path of its address says, once, and from then on behaves.

Serves motion JPEG, as most cheap cameras do.
"""

from __future__ import annotations

import base64
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import cv2
import numpy as np

USER, PASSWORD = "admin", "s3cret/p@ss:w?rd"
BOUNDARY = b"frame"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=" + BOUNDARY + b"\r\n\r\n"
SIZE_HW = (96, 128)
GOOD_FRAMES = 10  # before something happens
FPS = 100.0
STALL_SECONDS = 40.0  # more than anybody waits

Answer = Callable[[socket.socket, "HttpCamera"], None]


def jpeg(hw: tuple[int, int] = SIZE_HW, level: int = 100) -> bytes:
    """A frame."""
    return bytes(cv2.imencode(".jpg", np.full((*hw, 3), level % 256, np.uint8))[1])


def part(content: bytes) -> bytes:
    """A frame in its place in the stream."""
    length = str(len(content)).encode()
    return (
        b"--"
        + BOUNDARY
        + b"\r\nContent-Type: image/jpeg\r\nContent-Length: "
        + length
        + b"\r\n\r\n"
        + content
        + b"\r\n"
    )


class HttpCamera:
    """Answers each request in a thread of its own.

    Attributes:
        url: of its root.
        requests: how often each path was asked for.
        faults: how often a path misbehaves before it behaves.
    """

    def __init__(self, faults: int = 1) -> None:
        self.requests: Counter[str] = Counter()
        self.faults, self.stopped = faults, threading.Event()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while not self.stopped.is_set():
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            request = connection.recv(65536)
            path = request.split(b" ")[1].decode().split("?")[0] if request.count(b" ") > 1 else "/"
            self.requests[path] += 1
            wanted = b"Authorization: Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode())
            if path == "/password" and wanted not in request:
                connection.sendall(b'HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm="x"\r\n\r\n')
            elif path in ANSWERS and (path in ALWAYS or self.requests[path] <= self.faults):
                ANSWERS[path](connection, self)
            else:
                good(connection, self)

    def close(self) -> None:
        """Answer no more."""
        self.stopped.set()
        self._listening.close()


@contextmanager
def http_camera(faults: int = 1) -> Iterator[HttpCamera]:
    """A camera that is switched off at the end."""
    camera = HttpCamera(faults)
    try:
        yield camera
    finally:
        camera.close()


def good(connection: socket.socket, camera: HttpCamera, frames: int | None = None) -> None:
    """Frames until somebody has enough."""
    connection.sendall(HEAD)
    count = 0
    while not camera.stopped.is_set() and (frames is None or count < frames):
        connection.sendall(part(jpeg(level=count)))
        count += 1
        time.sleep(1 / FPS)


def _good_then(rest: bytes, stall: bool = False) -> Answer:
    """Some frames, ``rest``, and the end, or nothing more."""

    def answer(connection: socket.socket, camera: HttpCamera) -> None:
        good(connection, camera, GOOD_FRAMES)
        connection.sendall(rest)
        if stall:
            camera.stopped.wait(STALL_SECONDS)

    return answer


def _says(text: bytes, stall: bool = False) -> Answer:
    def answer(connection: socket.socket, camera: HttpCamera) -> None:
        connection.sendall(text)
        if stall:
            camera.stopped.wait(STALL_SECONDS)

    return answer


def _sizes(*sizes_hw: tuple[int, int]) -> Answer:
    def answer(connection: socket.socket, camera: HttpCamera) -> None:
        connection.sendall(HEAD)
        while not camera.stopped.is_set():
            for hw in sizes_hw:
                connection.sendall(part(jpeg(hw)))
                time.sleep(1 / FPS)

    return answer


def _damaged(connection: socket.socket, camera: HttpCamera) -> None:
    """Every second frame with wrong bytes in it."""
    connection.sendall(HEAD)
    choose = random.Random(0)
    while not camera.stopped.is_set():
        content = bytearray(jpeg(level=choose.randrange(256)))
        for _ in range(choose.choice((0, 8))):
            content[choose.randrange(20, len(content))] = choose.randrange(256)
        connection.sendall(part(bytes(content)))
        time.sleep(1 / FPS)


def _endless_header(connection: socket.socket, camera: HttpCamera) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
    for _ in range(2000):
        connection.sendall(b"x" * 10_000)


def _redirect(to: str) -> Answer:
    def answer(connection: socket.socket, camera: HttpCamera) -> None:
        connection.sendall(f"HTTP/1.1 302 Found\r\nLocation: {to.format(camera.url)}\r\n\r\n".encode())

    return answer


NOISE = random.Random(0).randbytes(300_000)
# A JPEG of 65000x65000 pixels, by its header
HUGE = b"\xff\xd8\xff\xc0\0\x11\x08\xfd\xe8\xfd\xe8\x03\x01\x11\0\x02\x11\0\x03\x11\0"
HUGE += b"\xff\xda\0\x08\x01\x01\0\0\x3f\0" + bytes(99)
ANSWERS: dict[str, Answer] = {
    "/drop/at-once": _says(b""),
    "/drop/after-the-head": _says(HEAD),
    "/drop/after-frames": _good_then(b""),
    "/drop/within-a-frame": _good_then(part(jpeg())[:300]),
    "/stall/at-once": _says(b"", stall=True),
    "/stall/after-the-head": _says(HEAD, stall=True),
    "/stall/after-frames": _good_then(b"", stall=True),
    "/stall/within-a-frame": _good_then(part(jpeg())[:300], stall=True),
    "/size/every-frame": _sizes((96, 128), (48, 64), (200, 120)),
    "/size/grows": _sizes(*((8 * n, 8 * n) for n in range(2, 90))),
    "/size/odd": _sizes((33, 77), (2, 2), (3, 500)),
    "/garbage/noise-after-frames": _good_then(NOISE),
    "/garbage/noise-as-a-frame": _good_then(part(NOISE)),
    "/garbage/noise-at-once": _says(HEAD + NOISE),
    "/garbage/noise-without-a-head": _says(NOISE),
    "/garbage/damaged-frames": _damaged,
    "/garbage/a-huge-frame": _good_then(part(HUGE)),
    "/garbage/an-endless-header": _endless_header,
    "/garbage/a-page": _says(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>login</html>"),
    "/refuse/401": _says(b"HTTP/1.1 401 Unauthorized\r\n\r\n"),
    "/refuse/403": _says(b"HTTP/1.1 403 Forbidden\r\n\r\n"),
    "/refuse/404": _says(b"HTTP/1.1 404 Not Found\r\n\r\n"),
    "/refuse/503": _says(b"HTTP/1.1 503 Service Unavailable\r\n\r\n"),
    "/redirect/to-the-camera": _redirect("{}/good"),
    "/redirect/in-a-circle": _redirect("{}/redirect/in-a-circle"),
    "/redirect/to-a-file": _redirect("file:///etc/hostname"),
    "/redirect/to-nobody": _redirect("http://127.0.0.1:1/"),
}
ALWAYS = {path for path in ANSWERS if path.startswith(("/size", "/redirect", "/garbage/damaged"))}  # not just at first
