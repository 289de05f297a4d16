"""Who may ask what of a page: methods, host names, the token, and how often."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

from gfl_edge import optional

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Receive = Callable[[], Awaitable[Message]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

METHODS = ("GET", "HEAD")
OPEN_PATHS = ("/healthz",)  # without a token: says nothing but whether it runs
MAX_REQUESTS_PER_SECOND = 400.0  # of all clients together; what comes faster waits
LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")
_HOST = re.compile(r"(\[[^\]]*\]|[^:]*)(?::\d*)?")
HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}


class Token:
    """Lets in who knows it: by ``Authorization: Bearer``, ``?token=``, or the cookie that the page gives for that.

    Args:
        token: the secret.
        cookie: name of the cookie.
    """

    def __init__(self, token: str, cookie: str) -> None:
        self.cookie = cookie
        self._token = token.encode()
        self._pass = hmac.new(self._token, b"gfl_edge live page", hashlib.sha256).hexdigest()

    @property
    def set_cookie(self) -> str:
        """The header that gives the cookie, from which the token cannot be told."""
        return f"{self.cookie}={self._pass}; Path=/; HttpOnly; SameSite=Lax"

    def in_query(self, query: bytes) -> bool:
        """Whether a request's query has it."""
        return any(self._is(value.encode()) for value in _fields(query).get("token", ()))

    def in_headers(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Whether a request's headers have it, or its cookie."""
        for name, value in headers:
            if name == b"authorization":
                kind, _, given = value.partition(b" ")
                if kind.lower() == b"bearer" and self._is(given.strip()):
                    return True
            if name == b"cookie":
                cookies: SimpleCookie = SimpleCookie()
                try:
                    cookies.load(value.decode("latin-1"))
                except CookieError:
                    continue
                found = cookies.get(self.cookie)
                if found is not None and hmac.compare_digest(found.value.encode(), self._pass.encode()):
                    return True
        return False

    def _is(self, given: bytes) -> bool:
        return hmac.compare_digest(given, self._token)


class Guard:
    """Stands before the page: only GET and HEAD, only with the token if there is one, only so often.

    Without a token, as only on 127.0.0.1, it answers only under that machine's own names, so that a web site that
    points a name of its own there reads nothing.

    Args:
        app: the page.
        token: None: all who reach it may ask.
        headers: to be added to every answer.
    """

    def __init__(self, app: App, token: Token | None, headers: dict[str, str]) -> None:
        self._app, self._token = app, token
        self._headers = [(name.lower().encode(), value.encode()) for name, value in {**HEADERS, **headers}.items()]
        self._pace = Pace(MAX_REQUESTS_PER_SECOND)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            return
        await self._pace.wait()

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *self._headers]
            await send(message)

        await (self._refusal(scope) or self._app)(scope, receive, guarded)

    def _refusal(self, scope: Scope) -> App | None:
        """What answers instead of the page; None: the page does."""
        if scope["method"] not in METHODS:
            return _say(405, "only GET and HEAD", {"Allow": ", ".join(METHODS), "Connection": "close"})
        if scope["path"] in OPEN_PATHS:
            return None
        if self._token is None:
            named = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
            if all((found := _HOST.fullmatch(name)) and found[1].lower() in LOOPBACK_NAMES for name in named):
                return None
            return _say(403, "this page answers only as 127.0.0.1 or localhost; give it a token to use other names")
        if self._token.in_query(scope["query_string"]):
            if scope["path"] == "/":  # the token does not stay in the address
                return _say(303, "", {"Location": "/", "Set-Cookie": self._token.set_cookie})
            return None
        if self._token.in_headers(scope["headers"]):
            return None
        text = "a token is needed: open the address that the camera showed, or send Authorization: Bearer"
        return _say(401, text, {"WWW-Authenticate": "Bearer"})


class Pace:
    """Lets so many pass in a second, evenly; the others wait, and no client can keep the camera from its work."""

    def __init__(self, per_second: float) -> None:
        self._gap_s, self._next_s = 1 / per_second, 0.0

    async def wait(self) -> None:
        """Wait for one's turn."""
        now = time.monotonic()
        turn = max(now, self._next_s)
        self._next_s = turn + self._gap_s
        if turn > now:
            await asyncio.sleep(turn - now)


class Viewers:
    """Those who watch: who asked within the last seconds, by the name that the page gives itself or by IP address.

    Args:
        limit: how many may.
    """

    SECONDS = 10.0

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._seen: dict[str, float] = {}

    def admit(self, viewer: str) -> bool:
        """Whether it may watch."""
        now = time.monotonic()
        if viewer not in self._seen and len(self._seen) >= self.limit:
            self._seen = {name: seen for name, seen in self._seen.items() if now - seen < self.SECONDS}
            if len(self._seen) >= self.limit:
                return False
        self._seen[viewer] = now
        return True

    def __len__(self) -> int:
        now = time.monotonic()
        return sum(now - seen < self.SECONDS for seen in self._seen.values())


def _fields(query: bytes) -> dict[str, list[str]]:
    try:
        return parse_qs(query.decode("latin-1"), max_num_fields=16)
    except ValueError:
        return {}


def _say(status: int, text: str, headers: dict[str, str] | None = None) -> App:
    response: App = optional.load("starlette.responses").PlainTextResponse(f"{text}\n", status, headers)
    return response
