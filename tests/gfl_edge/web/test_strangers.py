"""Who must not get in, what must not be read, and clients that send slowly, read nothing or come in crowds."""

from __future__ import annotations

import dataclasses
import logging
import socket
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from gfl_edge.media.sources import Frame
from gfl_edge.web import connections
from gfl_edge.web.access import MAX_REQUESTS_PER_SECOND
from gfl_edge.web.page import LivePage
from tests.support.fake_sources import FakeSource
from tests.support.live_page import Running, ask, close_all, closed_within, connect, wait_until

TOKEN = "0123456789-abcdefgh"
PATHS = ("/", "/stats.json", "/frame/0.jpg", "/snapshot/0.jpg", "/metrics", "/nothing", "/../../etc/passwd")


@pytest.fixture
def guarded() -> Iterator[Running]:
    """A page that others reach, with a token."""
    page = LivePage("0.0.0.0:0", TOKEN)
    with Running(page, FakeSource("cam", None, live=True, period_s=0.02)) as run:
        yield run


def test_nothing_without_the_token(guarded: Running) -> None:
    for path in PATHS:
        check_refused(guarded, path)


def check_refused(guarded: Running, path: str) -> None:
    for headers in (
        {},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": "Bearer"},
    ):
        found = guarded.get(path, **headers)
        assert (found.status, found.headers["www-authenticate"]) == (401, "Bearer")
    assert guarded.get(f"{path}?token=wrong").status == 401
    assert guarded.get(f"{path}?token={TOKEN[:-1]}").status == 401
    for cookie in (f"gfl_edge_{guarded.page.address.port}={TOKEN}", "a=b", "=;;;", "\xff" * 50, "x=" + "y" * 8000):
        assert guarded.get(path, Cookie=cookie).status == 401


def test_the_token_lets_in_once_and_then_a_cookie(guarded: Running) -> None:
    found = guarded.get(f"/?token={TOKEN}")
    assert (found.status, found.headers["location"]) == (303, "/")
    cookie, *settings = found.headers["set-cookie"].split("; ")
    assert set(settings) == {"Path=/", "HttpOnly", "SameSite=Lax"}
    assert TOKEN not in str(found.headers)
    for path in ("/", "/stats.json", "/frame/0.jpg"):
        assert guarded.get(path, Cookie=f"other=1; {cookie}").status == 200
        assert guarded.get(path, Authorization=f"bearer {TOKEN}").status == 200
    assert guarded.get(f"/metrics?token={TOKEN}").status == 200
    assert guarded.get("/stats.json", Cookie=cookie[:-1] + "x").status == 401
    assert guarded.get("/healthz").body == b'{"status":"running"}'


def test_a_token_is_made_where_others_reach_the_page() -> None:
    assert LivePage("8080").token is None
    made = LivePage("0.0.0.0:8080")
    assert made.token is not None
    assert len(made.token) == 32
    assert made.url.endswith(f":8080/?token={made.token}")
    assert LivePage("8080", TOKEN).token == TOKEN


def test_a_token_is_never_logged(guarded: Running, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        for path in (f"/?token={TOKEN}", f"/nothing?token={TOKEN}", f"/frame/0.jpg?token={TOKEN}&after=x"):
            guarded.get(path)
        guarded.get("/stats.json", Authorization=f"Bearer {TOKEN}")
        raw = connect(guarded.page, f"GET /?token={TOKEN} HTTP/1.1\r\nno header\r\n\r\n".encode())
        assert closed_within(raw, 5)
        raw.close()
    assert TOKEN not in caplog.text


def test_names_of_others_are_refused_without_a_token(running: Running) -> None:
    for host in ("localhost", "localhost:8080", "127.0.0.1:1", "[::1]:8080", "LOCALHOST"):
        assert running.get("/stats.json", Host=host).status == 200
    for host in (
        "evil.example",
        "evil.example:80",
        "127.0.0.1.evil.example",
        "localhost@evil",
        "",
        "[::1",
        "127.0.0.1:80:80",
    ):
        assert running.get("/stats.json", Host=host).status == 403, host


def test_other_methods(running: Running) -> None:
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "CONNECT", "NONSENSE"):
        found = running.get("/stats.json", method)
        assert (found.status, found.headers["allow"]) == (405, "GET, HEAD"), method


def test_a_head_has_no_body(running: Running) -> None:
    assert (running.get("/", "HEAD").status, running.get("/", "HEAD").body) == (200, b"")


def test_no_other_site_may_read_or_embed(running: Running) -> None:
    for path in (*PATHS, "/healthz"):
        headers = running.get(path, Origin="https://evil.example").headers
        assert not any(name.startswith("access-control") for name in headers)
        assert (headers["cross-origin-resource-policy"], headers["x-frame-options"]) == ("same-origin", "DENY")
        assert "default-src 'none'" in headers["content-security-policy"]
        assert (headers["cache-control"], headers["referrer-policy"]) == ("no-store", "no-referrer")


NO_PAGES = """
/../../../../etc/passwd  /%2e%2e/%2e%2e/etc/passwd  /..%2f..%2fetc%2fpasswd  /frame/../../etc/passwd  //etc/passwd
/frame/..%2f..%2fpage.html.jpg  /frame/%00.jpg  /frame/-1.jpg  /frame/1e0.jpg  /frame/0.jpg/
/frame/99999999999999999999.jpg  /snapshot/0.png
/page.html  /static/page.html  /frame/0.jpg?side=/etc/passwd  /frame/0.jpg?score=nan  /frame/0.jpg?score=1e9
/frame/0.jpg?score=-1  /frame/0.jpg?score=2  /snapshot/0.jpg?score=inf  /frame/0.jpg?after=-1  /frame/%D9%A0.jpg
/frame/\xd9\xa0.jpg
"""


def test_no_address_reads_a_file(running: Running) -> None:
    for path in (*NO_PAGES.split(), f"/frame/{'9' * 5000}.jpg"):
        check_no_file(running, path)


def check_no_file(running: Running, path: str) -> None:
    raw = connect(
        running.page, b"GET " + path.encode("latin-1") + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    answer = b""
    while part := raw.recv(65536):
        answer += part
    raw.close()
    assert answer.split()[1] in (b"404", b"400"), answer[:200]
    assert b"root:" not in answer
    assert b"<script" not in answer


LONG = b"x" * 70_000
GET, POST = b"GET / HTTP/1.1\r\nHost: localhost\r\n", b"POST / HTTP/1.1\r\nHost: localhost\r\n"
DROPPED = {
    "header": GET + b"X: " + LONG,
    "headers": GET + b"A: b\r\n" * 12_000,
    "address": b"GET /" + LONG,
    "garbage": LONG,
    "zeros": bytes(100) + b"\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01" * 20 + b"\r\n\r\n",
    "body": POST + b"Content-Length: 99999999999\r\n\r\n" + LONG,
    "chunks": POST + b"Transfer-Encoding: chunked\r\n\r\nffff\r\n" + LONG,
}


def test_what_is_too_long_or_no_request_is_dropped(running: Running) -> None:
    for name, sent in DROPPED.items():
        raw = connect(running.page)
        try:
            raw.sendall(sent)
        except OSError:
            pass  # it was dropped while it sent
        else:
            assert closed_within(raw, 8), name
        raw.close()
        assert running.get("/healthz").status == 200, name


def test_who_sends_slowly_is_dropped(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "REQUEST_SECONDS", 0.6)
    silent, slow = connect(running.page), connect(running.page, b"GET / HTTP/1.1\r\n")
    start = time.monotonic()
    while time.monotonic() - start < 10:
        try:
            slow.sendall(b"A: b\r\n")
            time.sleep(0.05)
        except OSError:
            break
    assert time.monotonic() - start < 8
    assert closed_within(silent, 5)
    close_all([silent, slow])


def test_who_reads_nothing_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "STALL_SECONDS", 0.4)
    request = b"GET /snapshot/0.jpg HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with Running(LivePage("0"), Noise()) as run:
        stalled = connect(run.page, request * 20)  # more than the buffers of the kernel hold
        wait_until(lambda: len(run.page._connections.open) == 1)
        wait_until(lambda: len(run.page._connections.open) == 0)
        stalled.close()


class Noise(FakeSource):
    """Frames whose JPEGs have megabytes."""

    def __init__(self) -> None:
        super().__init__("noise", None, live=True, period_s=0.05)

    def __iter__(self) -> Iterator[Frame]:
        noise = np.random.default_rng(0).integers(0, 256, (1200, 1600, 3), np.uint8)
        for frame in super().__iter__():
            yield dataclasses.replace(frame, pixels=noise)


def test_connections_are_counted(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 5)
    held = [connect(running.page) for _ in range(5)]
    wait_until(lambda: len(running.page._connections.open) == 5)
    beyond = connect(running.page, b"GET / HTTP/1.1\r\n\r\n")
    assert beyond.recv(100).startswith(b"HTTP/1.1 503 ")
    close_all([*held, beyond])
    wait_until(lambda: not running.page._connections.open)
    assert running.get("/healthz").status == 200


def test_viewers_are_counted() -> None:
    page = LivePage("0", max_viewers=3)
    with Running(page, FakeSource("cam", None, live=True, period_s=0.02)) as run:
        assert [run.get(f"/frame/0.jpg?viewer={name}").status for name in "abcab"] == [200] * 5
        refused = run.get("/stats.json?viewer=d")
        assert (refused.status, refused.headers["retry-after"]) == (503, "10")
        assert b"3 watch already" in refused.body
        assert run.get("/frame/0.jpg").status == 503, "without a name it is one, too"
        assert [run.get(path).status for path in ("/healthz", "/metrics", "/")] == [200, 200, 200]
        run.page._viewers.SECONDS = 0.0  # those before have left
        assert run.get("/stats.json?viewer=d").status == 200


def test_a_crowd_is_paced(running: Running) -> None:
    """One that asks as fast as it can, on many connections, gets no more than its share."""
    answered = []

    def hammer() -> None:
        raw = connect(running.page)
        until = time.monotonic() + 1
        while time.monotonic() < until:
            raw.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answered.append(raw.recv(4096))
        raw.close()

    threads = [threading.Thread(target=hammer) for _ in range(4)]
    start = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    count = b"".join(answered).count(b"HTTP/1.1 200")
    assert 0 < count <= MAX_REQUESTS_PER_SECOND * (time.monotonic() - start) + 5


def test_ten_clients_of_which_three_stall_do_not_slow_the_camera(running: Running) -> None:
    alone = rate(running, 1.5)
    request = b"GET /snapshot/0.jpg HTTP/1.1\r\nHost: localhost\r\n\r\n"
    stalled = [connect(running.page, request * 100) for _ in range(3)]
    over = threading.Event()

    def watch(name: str) -> None:
        while not over.is_set():
            ask(running.page, f"/frame/0.jpg?viewer={name}&score=0.{name}")

    watching = [threading.Thread(target=watch, args=(str(i),)) for i in range(1, 8)]
    for thread in watching:
        thread.start()
    together = rate(running, 1.5)
    over.set()
    for thread in watching:
        thread.join()
    close_all(stalled)
    assert together > 0.6 * alone, (alone, together)


def rate(running: Running, seconds: float) -> float:
    before, start = running.delivered(), time.monotonic()
    time.sleep(seconds)
    return (running.delivered() - before) / (time.monotonic() - start)


def test_the_end_waits_for_nobody() -> None:
    page = LivePage("0")
    request = b"GET /snapshot/0.jpg HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with Running(page, Noise()) as run:
        stalled = [connect(page, request * 20) for _ in range(3)]
        waiting = connect(page, b"GET /frame/0.jpg?after=1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        half = connect(page, b"GET / HT")
        wait_until(lambda: len(page._connections.open) == 5)
        run.stop()
        start = time.monotonic()
    assert time.monotonic() - start < 2.5
    close_all([*stalled, waiting, half])
    with pytest.raises(OSError):  # noqa: PT011  refused, by whatever words
        socket.create_connection(("127.0.0.1", page.address.port), 2)
