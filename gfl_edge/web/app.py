"""The page's answers: the page itself, images, statistics, metrics, and whether it runs. Nothing is read from disk."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import math
import re
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import asdict
from functools import partial
from importlib import resources
from typing import Any

from gfl_edge import optional
from gfl_edge.redact import redact
from gfl_edge.web.access import App, Guard, Token, Viewers
from gfl_edge.web.device import DeviceGauge, DeviceState
from gfl_edge.web.images import SIDES, Images, Kind
from gfl_edge.web.live import Live, RunStatistics
from gfl_edge.web.metrics import CONTENT_TYPE, exposition

WAIT_SECONDS = 2.0  # that an image is waited for before the answer is that there is none yet
STATISTICS_SECONDS = 0.2  # that they are kept for others who ask
MAX_DIGITS = 4  # of a source's number in an address

logger = logging.getLogger(__name__)
Answer = Callable[[Any], Awaitable[Any]]


def page_html() -> str:
    """The page: one HTML file without anything from elsewhere."""
    return resources.files(__package__).joinpath("page.html").read_text("utf-8")


def content_policy(html: str) -> str:
    """What the page may do: run its own script and style, and ask where it came from."""
    own = {
        tag: "'sha256-" + base64.b64encode(hashlib.sha256(found.encode()).digest()).decode() + "'"
        for tag, found in re.findall(r"<(script|style)>(.*?)</\1>", html, re.DOTALL)
    }
    return (
        f"default-src 'none'; script-src {own['script']}; style-src {own['style']}; img-src 'self' blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


class Answers:
    """What the page answers, by address.

    Args:
        live: the run.
        viewers: who watches.
        work: where images are made and counters read.
    """

    def __init__(self, live: Live, viewers: Viewers, work: Executor) -> None:
        self._live, self._viewers, self._work = live, viewers, work
        self._images, self.device = Images(live, work), DeviceGauge()
        self._responses = optional.load("starlette.responses")
        self._html = page_html()
        self._statistics: tuple[float, RunStatistics | None] = (-math.inf, None)
        self._failures: set[str] = set()

    def app(self, token: Token | None) -> App:
        """The page as an ASGI application."""
        route = optional.load("starlette.routing").Route
        routes = [
            route("/", self.page),
            route("/stats.json", self.watching(self.statistics)),
            route("/frame/{source}.jpg", self.watching(self.image)),
            route("/snapshot/{source}.jpg", self.watching(self.snapshot)),
            route("/metrics", self.metrics),
            route("/healthz", self.health),
        ]
        starlette = optional.load("starlette.applications").Starlette
        app = starlette(routes=routes, exception_handlers={Exception: self.failed})
        app.router.redirect_slashes = False
        return Guard(app, token, {"Content-Security-Policy": content_policy(self._html)})

    def watching(self, answer: Answer) -> Answer:
        """``answer`` for as many as may watch; the others are asked to come later."""

        async def admitted(request: Any) -> Any:
            named = request.query_params.get("viewer", "")
            address = request.client.host if request.client else "?"
            if self._viewers.admit(named if re.fullmatch(r"[a-z0-9]{1,32}", named) else address):
                return await answer(request)
            text = f"{self._viewers.limit} watch already: come back when one has left\n"
            return self._responses.PlainTextResponse(text, 503, {"Retry-After": "10"})

        return admitted

    async def page(self, request: Any) -> Any:
        """The page."""
        return self._responses.HTMLResponse(self._html)

    async def health(self, request: Any) -> Any:
        """Status 200 while the run goes on, else 503."""
        phase = self._live.phase
        return self._responses.JSONResponse({"status": phase}, 200 if phase == "running" else 503)

    async def image(self, request: Any) -> Any:
        """A frame of a source, newer than ``after``; 204 where none comes for a while."""
        query = request.query_params
        after = query.get("after", "0")
        kind = self._kind(request.path_params["source"], query.get("score"), query.get("side", "large"))
        if kind is None or not re.fullmatch(r"[0-9]{1,18}", after):
            return self._nothing(kind is None)
        found = await self._images.newer(kind, int(after), WAIT_SECONDS)
        if found is None:
            return self._responses.Response(status_code=204)
        return self._responses.Response(found.jpeg, 200, {"X-Frame": str(found.number)}, "image/jpeg")

    async def snapshot(self, request: Any) -> Any:
        """The newest frame in its full size, to be kept."""
        kind = self._kind(request.path_params["source"], request.query_params.get("score"), "full")
        if kind is None:
            return self._nothing(True)
        found = await self._images.newer(kind, 0, WAIT_SECONDS)
        if found is None:
            return self._responses.PlainTextResponse("no frame has come yet\n", 503, {"Retry-After": "2"})
        name = f"source-{kind.source}-frame-{found.number}.jpg"
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        return self._responses.Response(found.jpeg, 200, headers, "image/jpeg")

    def _kind(self, source: str, score: str | None, side: str) -> Kind | None:
        """What is asked for; None if there is no such thing."""
        if not re.fullmatch(rf"[0-9]{{1,{MAX_DIGITS}}}", source) or int(source) >= len(self._live.frames):
            return None
        if side not in SIDES or (score is not None and not re.fullmatch(r"0?\.[0-9]{1,4}|[01](\.0{1,4})?", score)):
            return None
        # Hundredths, so that many who watch share images
        return Kind(int(source), None if score is None else round(float(score), 2), side)

    def _nothing(self, unknown: bool) -> Any:
        text = "no such source, score or side\n" if unknown else "after: expected the number of a frame\n"
        return self._responses.PlainTextResponse(text, 404 if unknown else 400)

    async def statistics(self, request: Any) -> Any:
        """How the run does, as JSON."""
        live, now = self._live, time.monotonic()
        run, device = self._now(), await self._device()
        frames = [
            {} if frame is None else {"size_wh": frame.size_wh, "seconds_since_frame": now - frame.shown_s}
            for frame in live.frames
        ]
        told: dict[str, Any] = {
            "status": live.phase,
            "viewers": len(self._viewers),
            "score": None if live.run is None else live.run.keep.score,
            "device": asdict(device),
            "run": None,
        }
        if run is not None:
            told["run"] = asdict(run)
            for source, frame in zip(told["run"]["sources"], frames, strict=True):
                source.pop("latency_counts")
                source.pop("latency_sum_s")
                source.update(frame)
        return self._responses.JSONResponse(told)

    async def metrics(self, request: Any) -> Any:
        """The same for Prometheus."""
        text = exposition(self._live, self._now(), await self._device(), len(self._viewers))
        return self._responses.Response(text, 200, {"Content-Type": CONTENT_TYPE})

    def _now(self) -> RunStatistics | None:
        """The run's statistics, at most so old; one look serves all."""
        made_s, statistics = self._statistics
        if time.monotonic() - made_s > STATISTICS_SECONDS or statistics is None:
            statistics = None if self._live.run is None else self._live.run.statistics()
            self._statistics = time.monotonic(), statistics
        return statistics

    async def _device(self) -> DeviceState:
        run = self._live.run
        if run is None:
            return DeviceState()
        return await asyncio.get_running_loop().run_in_executor(self._work, partial(self.device.read, run.backend))

    async def failed(self, request: Any, error: Exception) -> Any:
        """A mistake of ours: one line in the log, once for each, and status 500."""
        said = redact(f"{type(error).__name__}: {error}")
        if said not in self._failures and len(self._failures) < 100:
            self._failures.add(said)
            logger.warning("the live page failed at %s: %s", request.url.path[:60], said, exc_info=error)
        return self._responses.PlainTextResponse("the page failed; the log of the camera says why\n", 500)
