"""A real RTSP server with something in between that stalls, cuts and garbles what it sends, on loopback.

RTSP over TCP carries the video in the connection that it is controlled by, so what is done to the bytes of one
connection is done to all of it.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

SYSTEM_PYTHON = "/usr/bin/python3"
SERVER = Path(__file__).with_name("rtsp_server.py")
LOOK = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"
INSTALL = "apt-get install gir1.2-gst-rtsp-server-1.0 python3-gi gstreamer1.0-plugins-base gstreamer1.0-plugins-good"
GOOD_BYTES = 60_000  # that pass before something happens: some frames

# What is done to the bytes that the server sends after those; None: the connection is cut
Fault = Callable[[bytes], bytes | None]


def why_no_server() -> str:
    """What is missing for the server; "" if nothing is."""
    if shutil.which(SYSTEM_PYTHON) is None:
        return f"there is no {SYSTEM_PYTHON}, whose GStreamer is needed: {INSTALL}"
    looked = subprocess.run([SYSTEM_PYTHON, "-c", LOOK], capture_output=True, check=False)
    return "" if looked.returncode == 0 else f"GStreamer's RTSP server is not installed: {INSTALL}"


class RtspServer:
    """The server, which can be stopped, switched off and on again.

    Attributes:
        port: on loopback.
        process: its own.
    """

    def __init__(self, *login: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self._login = login
        self.process = self.start()

    def start(self) -> subprocess.Popen[str]:
        """Switch it on."""
        words = [SYSTEM_PYTHON, str(SERVER), str(self.port), *self._login]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n", "the RTSP server did not start"
        return self.process

    def kill(self) -> None:
        """Switch it off."""
        self.process.kill()
        self.process.communicate()

    def __enter__(self) -> RtspServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def cut(_: bytes) -> None:
    """The cable."""
    return


def stall(_: bytes) -> bytes:
    """Nothing comes any more."""
    return b""


def noise(content: bytes) -> bytes:
    """All is noise."""
    return random.Random(len(content)).randbytes(len(content))


def flips(content: bytes) -> bytes:
    """Each thousandth byte is wrong."""
    damaged = bytearray(content)
    for at in range(0, len(damaged), 1000):
        damaged[at] ^= 0x55
    return bytes(damaged)


def flips_in_images(content: bytes) -> bytes:
    """Each seven hundredth byte is wrong, but none of the four that begin a packet in the connection."""
    damaged = bytearray(content)
    for at in range(50, len(damaged), 700):
        if b"$" not in damaged[at - 4 : at + 1]:
            damaged[at] ^= 0x55
    return bytes(damaged)


def doubled(content: bytes) -> bytes:
    """Packets come twice and a piece is missing."""
    return content[: len(content) // 2] + content[len(content) // 3 :]


@contextmanager
def between(port: int, fault: Fault, faults: int = 1, good_bytes: int = GOOD_BYTES) -> Iterator[int]:
    """A port that leads to ``port``, where the first so many connections suffer ``fault`` after some good bytes."""
    listening, connections = socket.create_server(("127.0.0.1", 0)), list[socket.socket]()

    def accept() -> None:
        number = 0
        with contextlib.suppress(OSError):
            while True:
                camera, _ = listening.accept()
                server = socket.create_connection(("127.0.0.1", port))
                connections.extend((camera, server))
                for direction in (
                    (camera, server, None),
                    (server, camera, fault if number < faults else None),
                ):
                    threading.Thread(target=_pass_on, args=(*direction, good_bytes), daemon=True).start()
                number += 1

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listening.getsockname()[1]
    finally:
        for connection in (listening, *connections):
            connection.close()


def _pass_on(source: socket.socket, sink: socket.socket, fault: Fault | None, good_bytes: int) -> None:
    passed = 0
    with contextlib.suppress(OSError):
        while content := source.recv(8192):
            passed += len(content)
            changed = fault(content) if fault is not None and passed > good_bytes else content
            if changed is None:
                break
            sink.sendall(changed)
        for connection in (source, sink):
            connection.shutdown(socket.SHUT_RDWR)
