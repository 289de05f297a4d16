"""Downloads from a server on this machine that cuts, refuses, lies and changes its files."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from gfl_edge.errors import DownloadError
from gfl_edge.zoo import download as download_module
from gfl_edge.zoo.download import Wanted, download

CONTENT = bytes(range(256)) * 4000  # more than one chunk
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves ``content``; what it does wrong is set by the test."""

    daemon_threads = True

    def __init__(self, host: str = "127.0.0.1") -> None:
        super().__init__((host, 0), Handler)
        self.content, self.etag = CONTENT, '"one"'
        self.modified = ""
        self.kind = "application/octet-stream"
        self.cuts: list[int] = []  # after so many bytes of an answer the connection drops
        self.ranges = True
        self.chunked = False
        self.redirect = ""
        self.headers: dict[str, str] = {}  # instead of, or beside, those that are right
        self.status = 0  # instead of that which is right
        self.asked: list[str] = []  # the ranges of all requests

    @property
    def url(self) -> str:
        return "http://{}:{}/model.pth".format(*self.server_address)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        server, wanted = self.server, self.headers.get("Range", "")
        server.asked.append(wanted)
        if server.redirect:
            self.send_response(302)
            self.send_header("Location", server.redirect)
            self.end_headers()
            return
        if self.path != "/model.pth":
            self.send_error(404)
            return
        known = self.headers.get("If-Range") in (server.etag or None, server.modified or None)
        start = int(wanted[len("bytes=") : -1]) if wanted and server.ranges and known else 0
        if start >= len(server.content):
            self.send_error(416)
            return
        body = server.content[start:]
        self.send_response(server.status or (206 if start else 200))
        headers = {"Content-Type": server.kind, "ETag": server.etag, "Last-Modified": server.modified}
        headers |= {"Transfer-Encoding": "chunked"} if server.chunked else {"Content-Length": str(len(body))}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(server.content) - 1}/{len(server.content)}"
        for name, value in {**headers, **server.headers}.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        sent = body[: server.cuts.pop(0)] if server.cuts else body
        if server.chunked:
            end = b"0\r\n\r\n" if len(sent) == len(body) else b"fff\r\n"
            self.wfile.write(b"%x\r\n%b\r\n%b" % (len(sent), sent, end))
        else:
            self.wfile.write(sent)


@contextmanager
def running(server: Server) -> Iterator[Server]:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    with running(Server()) as server:
        yield server


@pytest.fixture
def wanted(server: Server, tmp_path: Path) -> Wanted:
    return Wanted(server.url, tmp_path / "weights" / "model.pth", DIGEST)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download_module, "PAUSE_S", 0.0)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def left(wanted: Wanted) -> set[str]:
    return {path.name for path in wanted.path.parent.iterdir()}


@pytest.mark.parametrize("digest", [DIGEST, DIGEST[:8], ""])
def test_a_file_comes_whole_and_checked(wanted: Wanted, digest: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert download(Wanted(wanted.url, wanted.path, digest)) == DIGEST
    assert wanted.path.read_bytes() == CONTENT
    assert left(wanted) == {"model.pth"}
    assert re.search(
        r"^downloading model.pth: 100%\|#+\| 1.02M/1.02M \[.*B/s\]$", capsys.readouterr().err, re.MULTILINE
    )


def test_a_file_in_place_is_checked_and_not_downloaded_again(server: Server, wanted: Wanted) -> None:
    download(wanted)
    assert download(wanted) == DIGEST
    assert len(server.asked) == 1
    wanted.path.write_bytes(b"another")
    with pytest.raises(DownloadError, match=f"has the SHA-256 .*, expected {DIGEST}. Delete it and run this again"):
        download(wanted)


def test_a_cut_is_resumed_within_one_call(server: Server, wanted: Wanted) -> None:
    server.cuts = [300_000, 200_000]
    assert download(wanted) == DIGEST
    assert server.asked == ["", "bytes=300000-", "bytes=500000-"]


def test_a_cut_is_resumed_by_the_next_call(server: Server, wanted: Wanted) -> None:
    server.cuts = [100_000] * 3
    with pytest.raises(DownloadError, match=r"was cut 3 times; 300000 bytes are there\. Run this again to go on"):
        download(wanted)
    assert left(wanted) == {"model.pth.part", "model.pth.part.version"}
    assert download(wanted) == DIGEST
    assert server.asked[-1] == "bytes=300000-"
    assert wanted.path.read_bytes() == CONTENT


def test_the_bar_of_a_resumed_download_starts_where_it_was_cut(
    server: Server, wanted: Wanted, capsys: pytest.CaptureFixture[str]
) -> None:
    server.cuts = [500_000]
    download(wanted)
    states = [line.split(" [")[0] for line in capsys.readouterr().err.splitlines()]
    assert [state.split()[-1] for state in states] == ["0.00/1.02M", "500k/1.02M", "500k/1.02M", "1.02M/1.02M"]


def test_a_file_that_changed_meanwhile_is_not_patched_together(server: Server, wanted: Wanted) -> None:
    class Changing(list[int]):
        def pop(self, index: int = -1) -> int:  # type: ignore[override]
            server.content, server.etag = CONTENT, '"one"'  # after the first answer has begun
            return super().pop(index)

    server.content, server.etag, server.cuts = CONTENT[::-1], '"zero"', Changing([400_000])
    assert download(wanted) == DIGEST
    assert server.asked == ["", "bytes=400000-"]


@pytest.mark.parametrize(("etag", "modified"), [("", "Wed, 21 Oct 2015 07:28:00 GMT"), ('W/"1"', "yesterday")])
def test_without_a_strong_etag_the_date_says_whether_it_is_the_same(
    server: Server, wanted: Wanted, etag: str, modified: str
) -> None:
    server.etag, server.modified, server.cuts = etag, modified, [400_000]
    assert download(wanted) == DIGEST
    assert server.asked == ["", "bytes=400000-"]


def test_a_server_that_names_no_version_starts_over(server: Server, wanted: Wanted) -> None:
    server.etag, server.cuts = "", [400_000]
    assert download(wanted) == DIGEST
    assert server.asked == ["", ""]


def test_a_server_without_ranges_starts_over(server: Server, wanted: Wanted) -> None:
    server.ranges, server.cuts = False, [400_000]
    assert download(wanted) == DIGEST
    assert server.asked == ["", "bytes=400000-"]
    assert wanted.path.read_bytes() == CONTENT


def test_a_part_that_is_too_long_starts_over(server: Server, wanted: Wanted) -> None:
    wanted.path.parent.mkdir()
    wanted.beside(".part").write_bytes(CONTENT + b"more")
    wanted.beside(".part.version").write_text(server.etag)
    assert download(wanted) == DIGEST
    assert server.asked == [f"bytes={len(CONTENT) + 4}-", ""]


def test_a_wrong_digest_leaves_nothing(server: Server, wanted: Wanted) -> None:
    server.content = CONTENT[:-1]
    with pytest.raises(DownloadError, match=f"what {server.url} gave has the SHA-256 .*, expected {DIGEST}"):
        download(wanted)
    assert left(wanted) == set()
    short = Wanted(server.url, wanted.path, DIGEST[:8])
    with pytest.raises(DownloadError, match=f"expected one that begins with {DIGEST[:8]}"):
        download(short)


def test_what_is_not_there(server: Server, wanted: Wanted) -> None:
    gone = Wanted(server.url.replace("model", "gone"), wanted.path, DIGEST)
    with pytest.raises(DownloadError, match="the server answers 404 Not Found"):
        download(gone)


def test_a_web_page_is_no_file(server: Server, wanted: Wanted) -> None:
    server.kind = "text/html; charset=utf-8"
    with pytest.raises(DownloadError, match="gave a web page instead of a file"):
        download(wanted)
    assert left(wanted) == set()


def test_offline(server: Server, wanted: Wanted) -> None:
    server.server_close()  # nobody listens any more
    with pytest.raises(DownloadError, match=r"cannot be reached \(.*\)$"):
        download(wanted)


def test_offline_with_a_part_of_the_file(server: Server, wanted: Wanted) -> None:
    wanted.path.parent.mkdir()
    wanted.beside(".part").write_bytes(CONTENT[:1000])
    wanted.beside(".part.version").write_text(server.etag)
    server.server_close()
    with pytest.raises(DownloadError, match="1000 bytes are there, from which it goes on"):
        download(wanted)
    assert wanted.beside(".part").stat().st_size == 1000


def test_a_cut_shows_even_where_the_length_is_not_given(server: Server, wanted: Wanted) -> None:
    server.chunked, server.cuts = True, [400_000]
    assert download(Wanted(wanted.url, wanted.path)) == DIGEST
    assert server.asked == ["", f"bytes={download_module.CHUNK_BYTES}-"]


def test_plain_http_is_refused(server: Server, wanted: Wanted) -> None:
    with pytest.raises(DownloadError, match="not HTTPS"):
        download(Wanted("http://models.invalid/model.pth", wanted.path))
    assert not wanted.path.parent.exists()


def test_a_redirection_to_plain_http_is_refused(
    server: Server, wanted: Wanted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download_module, "LOOPBACK", ("127.0.0.1",))
    with running(Server("127.0.0.2")) as far:
        server.redirect = far.url
        with pytest.raises(DownloadError, match=r"127\.0\.0\.2.*not HTTPS"):
            download(wanted)
    assert left(wanted) == set()


def test_two_at_once_download_once(server: Server, wanted: Wanted) -> None:
    results: list[str] = []
    threads = [threading.Thread(target=lambda: results.append(download(wanted))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [DIGEST] * 4
    assert len(server.asked) == 1


def test_a_folder_that_cannot_be_written(server: Server, wanted: Wanted) -> None:
    wanted.path.parent.touch()
    with pytest.raises(DownloadError, match="cannot be written"):
        download(wanted)


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Length": "many"},
        {"Content-Length": "-5"},
        {"Content-Length": "1e6"},
        {"ETag": "\x7f\xff"},
        {"ETag": '"' + "e" * 5000 + '"'},
        {"Content-Range": "bytes 7-"},
        {"Content-Type": "application/octet-stream; charset=\xff"},
    ],
    ids=lambda headers: ", ".join(headers),
)
def test_headers_that_make_no_sense_do_no_harm(server: Server, wanted: Wanted, headers: dict[str, str]) -> None:
    server.headers = headers
    assert download(wanted) == DIGEST
    assert left(wanted) == {"model.pth"}


@pytest.mark.parametrize(
    ("headers", "status", "message"),
    [
        ({"Content-Length": "9" * 15}, 0, r"gives more than 4\.3 GB"),
        ({"Content-Length": "4" + "0" * 9}, 0, r"4000 MB are missing and 1000 MB are free on its disk"),
        ({"Content-Length": "7"}, 0, "has the SHA-256"),
        ({"Content-Encoding": "gzip"}, 0, "in the encoding 'gzip', which was not asked for"),
        ({}, 206, r"was cut 3 times; 0 bytes are there"),
        ({"Content-Range": "bytes 7-9/10"}, 206, r"was cut 3 times; 0 bytes are there"),
        ({"Content-Length": "0"}, 204, "answers 204"),
        ({}, 203, "answers 203"),
    ],
)
def test_answers_that_lie(
    server: Server,
    wanted: Wanted,
    monkeypatch: pytest.MonkeyPatch,
    headers: dict[str, str],
    status: int,
    message: str,
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=10**9))
    server.headers, server.status = headers, status
    with pytest.raises(DownloadError, match=message):
        download(wanted)
    assert left(wanted) == set()


@pytest.mark.parametrize(
    "headers", [{"Content-Range": "bytes 5-9/10"}, {"Content-Range": "all of it"}, {"ETag": '"other"'}]
)
def test_another_range_than_was_asked_for_is_not_patched_in(
    server: Server, wanted: Wanted, headers: dict[str, str]
) -> None:
    class Lying(list[int]):
        def pop(self, index: int = -1) -> int:  # type: ignore[override]
            server.headers = {} if server.headers else headers  # of the second answer only
            return super().pop(index)

    server.cuts = Lying([400_000, 10**9])
    assert download(wanted) == DIGEST
    assert server.asked == ["", "bytes=400000-", ""]


@pytest.mark.parametrize("target", ["ftp://127.0.0.1/model.pth", "file:///etc/hostname", "https://[x/", "http://a b/"])
def test_redirections_to_elsewhere(server: Server, wanted: Wanted, target: str) -> None:
    server.redirect = target
    with pytest.raises(DownloadError):
        download(wanted)
    assert left(wanted) == set()


def test_redirections_in_a_circle(server: Server, wanted: Wanted) -> None:
    server.redirect = server.url
    with pytest.raises(DownloadError, match="infinite loop"):
        download(wanted)


def test_an_answer_without_end(server: Server, wanted: Wanted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download_module, "MAX_BYTES", 600_000)
    server.chunked = True
    with pytest.raises(DownloadError, match=r"gives more than 0\.0 GB"):
        download(wanted)


@pytest.mark.parametrize("version", [b'"one"', b"", b"\xff\xfe", b"a\r\nHost: elsewhere", b"x" * 10_000])
@pytest.mark.parametrize("part", [b"", b"?" * 1000, CONTENT[:1000], CONTENT + b"more"], ids=len)
def test_a_damaged_state_is_mended(server: Server, wanted: Wanted, part: bytes, version: bytes) -> None:
    wanted.path.parent.mkdir()
    wanted.beside(".part").write_bytes(part)
    wanted.beside(".part.version").write_bytes(version)
    assert download(wanted) == DIGEST
    assert left(wanted) == {"model.pth"}


def test_without_a_digest_nothing_of_an_earlier_process_is_taken(server: Server, wanted: Wanted) -> None:
    wanted.path.parent.mkdir()
    wanted.beside(".part").write_bytes(b"?" * 1000)
    wanted.beside(".part.version").write_text(server.etag)
    assert download(Wanted(wanted.url, wanted.path)) == DIGEST
