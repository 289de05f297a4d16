"""The live page of a run, served by a thread of its own (uvicorn and Starlette, the extra ``web``)."""

from __future__ import annotations

import asyncio
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import TracebackType

from gfl_edge import optional
from gfl_edge.errors import InputError
from gfl_edge.parsing.numbers import whole_number
from gfl_edge.web.access import Token, Viewers
from gfl_edge.web.address import listen, new_token, read_address, read_token
from gfl_edge.web.app import Answers
from gfl_edge.web.connections import MAX_HEADER_BYTES, Connections
from gfl_edge.web.live import Live

MAX_VIEWERS = 16
STARTS_SECONDS, STOPS_SECONDS = 10.0, 2.0
GRACE_SECONDS = 0.5  # that answers on their way may take in the end
KEEP_ALIVE_SECONDS = 5  # that a connection may wait for its next request

logger = logging.getLogger(__name__)


class LivePage:
    """A page with the annotated images and statistics of a run, ``/metrics`` for Prometheus and ``/healthz``.

    As a context manager it listens, at once, and gives the address free in the end. Whoever watches, however slowly,
    never holds up the run.

        with LivePage("0.0.0.0:8080") as page:
            print(page.url)
            run_camera(source="rtsp://...", serve=page)

    Args:
        address: ``[HOST:]PORT``; without a host only this machine reaches it.
        token: that lets in; where others reach it and none is given a random one is made.
        max_viewers: that may watch at the same time.

    Attributes:
        live: what the run writes into.
        address: where it is served, with the port that was chosen where 0 was given.
        token: None: all who reach it are let in.

    Raises:
        InputError: no address or token; entering it: the port is in use.
        MissingDependencyError: the extra ``web`` is not installed.
    """

    def __init__(self, address: str, token: str | None = None, *, max_viewers: int = MAX_VIEWERS) -> None:
        self.address = read_address(address)
        self.token = None if token is None else read_token(token)
        if self.token is None and not self.address.loopback:
            self.token = new_token()
        self._viewers = Viewers(whole_number("max_viewers", max_viewers))
        for module in ("starlette.applications", "uvicorn", "prometheus_client"):
            optional.load(module)
        self.live = Live()
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """What a browser opens, with the token if there is one."""
        return self.address.url + (f"?token={self.token}" if self.token else "")

    @property
    def open(self) -> bool:
        """Whether it is served."""
        return self._thread is not None

    def __enter__(self) -> LivePage:
        if self.open:
            raise InputError("the live page is open already")
        self._socket = listen(self.address)
        self.address = replace(self.address, port=self._socket.getsockname()[1])
        self._work = ThreadPoolExecutor(1, "gfl_edge web images")
        self._answers = Answers(self.live, self._viewers, self._work)
        token = Token(self.token, f"gfl_edge_{self.address.port}") if self.token else None
        uvicorn = optional.load("uvicorn")
        http = optional.load("uvicorn.protocols.http.h11_impl").H11Protocol
        self._connections = Connections(http)
        config = uvicorn.Config(
            self._answers.app(token),
            http=self._connections,
            loop="asyncio",
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level="critical",  # it would log whatever strangers send
            access_log=False,  # addresses may hold the token
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=1,
            h11_max_incomplete_event_size=MAX_HEADER_BYTES,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="gfl_edge web", daemon=True)
        self._thread.start()
        return self

    def _run(self) -> None:
        """The thread."""
        try:
            asyncio.run(self._serve())
        except Exception:  # the run goes on without its page
            logger.exception("the live page has stopped")

    async def _serve(self) -> None:
        serving = asyncio.ensure_future(self._server.serve(sockets=[self._socket]))
        while not self._server.should_exit and not serving.done():
            await asyncio.sleep(0.05)
        await asyncio.wait([serving], timeout=GRACE_SECONDS)
        self._connections.abort()
        await serving

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop serving, within two seconds."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self.live.end()
        self._server.should_exit = True
        thread.join(STOPS_SECONDS)
        self._socket.close()
        self._work.shutdown(wait=not thread.is_alive(), cancel_futures=True)
        self._answers.device.close()
        if thread.is_alive():
            logger.warning("the live page does not end; it is left to end by itself")
