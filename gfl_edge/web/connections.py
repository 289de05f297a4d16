"""Connections to a page that cannot be held for ever: by clients that send slowly, do not read, or are many."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

MAX_CONNECTIONS = 128
REQUEST_SECONDS = 10.0  # that a request may take to arrive
STALL_SECONDS = 10.0  # that a client may read nothing of what waits for it
MAX_REQUEST_BYTES = 1 << 16
MAX_HEADER_BYTES = 1 << 14
_FULL = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nRetry-After: 10\r\nConnection: close\r\n\r\n"


class Connections:
    """Those that are open; makes the protocol of each, around one of the server's.

    Args:
        protocol: uvicorn's, of HTTP/1.1.
    """

    def __init__(self, protocol: Callable[..., Any]) -> None:
        self._protocol = protocol
        self.open: set[Connection] = set()

    def __call__(self, **settings: Any) -> Connection:
        """The protocol of a new connection, with uvicorn's ``settings``."""
        return Connection(self._protocol(**settings), self.open)

    def abort(self) -> None:
        """Drop all, without waiting for anybody."""
        for connection in list(self.open):
            connection.abort()


class Connection(asyncio.Protocol):
    """One connection: drops a client whose request does not come, is too long, or who does not read."""

    def __init__(self, inner: Any, others: set[Connection]) -> None:
        self._inner, self._open = inner, others
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._received, self._cycle, self._refused = 0, None, False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count it, or refuse it where there are too many."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if len(self._open) >= MAX_CONNECTIONS:
            self._refused = True
            transport.write(_FULL)
            transport.close()
            self._start("request", 1.0, self.abort)
            return
        self._open.add(self)
        transport.set_write_buffer_limits(high=0)  # so that whoever reads nothing is noticed
        self._inner.connection_made(transport)
        self._start("request", REQUEST_SECONDS, self.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        for name in list(self._timers):
            self._stop(name)
        self._open.discard(self)
        if not self._refused:
            self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Hand it on, as long as it is a part of a request that comes to an end."""
        if self._refused:
            return
        self._received += len(data)
        if self._received > MAX_REQUEST_BYTES:
            self.abort()
            return
        if "request" not in self._timers and (self._cycle is None or self._cycle.response_complete):
            self._start("request", REQUEST_SECONDS, self.abort)
        self._inner.data_received(data)
        if self._inner.cycle is not self._cycle:  # a request is complete
            self._cycle, self._received = self._inner.cycle, 0
            self._stop("request")

    def eof_received(self) -> bool | None:
        """As uvicorn does."""
        if not self._refused:
            self._inner.eof_received()
        return None

    def pause_writing(self) -> None:
        """The client does not read as fast as it asked: watch whether it reads at all."""
        if not self._refused:
            self._inner.pause_writing()
            self._watch()

    def resume_writing(self) -> None:
        """It has read all."""
        self._stop("stall")
        if not self._refused:
            self._inner.resume_writing()

    def _watch(self) -> None:
        waiting = self._transport.get_write_buffer_size()

        def look() -> None:
            if self._transport.get_write_buffer_size() >= waiting:
                self.abort()
            else:
                self._watch()

        self._start("stall", STALL_SECONDS, look)

    def _start(self, name: str, seconds: float, then: Callable[[], None]) -> None:
        self._stop(name)
        self._timers[name] = asyncio.get_running_loop().call_later(seconds, then)

    def _stop(self, name: str) -> None:
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()

    def abort(self) -> None:
        """Drop it, and what waits to be sent."""
        self._transport.abort()
