"""Notes every network address that this Python process and its children ask for; on the path by watched_network.py.

It stays when a process forks, as OpenVINO's telemetry does, and sees what Python opens, not what a C library does.
"""

from __future__ import annotations

import os
import sys

_EVENTS = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto")
_HERE = ("localhost", "127.0.0.1", "::1", "0.0.0.0", "")


def _note(event: str, arguments: tuple[object, ...]) -> None:
    if event not in _EVENTS:
        return
    address = arguments[0] if event in ("socket.getaddrinfo", "socket.gethostbyname") else arguments[1]
    host = address[0] if isinstance(address, tuple) else address
    unix = event == "socket.connect" and not isinstance(address, tuple)  # a file, for another process of this machine
    if unix or host is None or host in _HERE or str(host).startswith("127."):
        return
    line = f"{event} {host} {' '.join(sys.argv)[:200]}\n".encode()
    file = os.open(os.environ["GFL_EDGE_WATCHED"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, line)
    os.close(file)


if "GFL_EDGE_WATCHED" in os.environ:
    sys.addaudithook(_note)
