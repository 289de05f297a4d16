"""Download of a file: over HTTPS, resumed where it was cut, whole and checked before it has its name."""

from __future__ import annotations

import http.client
import logging
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gfl_edge._version import __version__
from gfl_edge.errors import DownloadError
from gfl_edge.files import sha256, write_atomically
from gfl_edge.progress import progress_bar

logger = logging.getLogger(__name__)

TIMEOUT_S = 30.0  # without an answer or another byte
ATTEMPTS = 3  # each goes on where the one before was cut
PAUSE_S = 1.0  # between them
CHUNK_BYTES = 1 << 18
LOOPBACK = ("127.0.0.1", "localhost", "::1")  # where plain HTTP goes through nobody's hands


@dataclass(frozen=True)
class Wanted:
    """What to download.

    Attributes:
        url: where from; HTTPS, or HTTP on this machine itself.
        path: where to; beside it lie ``.part`` with what has come so far, ``.part.version`` with what the server called
            the file, and ``.lock``.
        digest: SHA-256 in hexadecimal, or the digits that it begins with; "" where nothing is known.
    """

    url: str
    path: Path
    digest: str = ""

    def beside(self, ending: str) -> Path:
        """A file beside :attr:`path`."""
        return self.path.with_name(self.path.name + ending)


def download(wanted: Wanted) -> str:
    """Bring ``wanted.path`` here unless it is there already; several processes may ask for the same file at once.

    Returns:
        SHA-256 of the file, hexadecimal.

    Raises:
        DownloadError: no connection, the server refuses or sends a web page, the connection was cut again and again, or
            the file has another digest. What has come stays for the next time, except a file with another digest.
    """
    _refuse_plain_http(wanted.url)
    try:
        wanted.path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(wanted.beside(".lock")):
            return check(wanted) if wanted.path.is_file() else _download(wanted)
    except OSError as error:
        raise DownloadError(f"cannot write {wanted.path}: {error.strerror or error}") from error


def check(wanted: Wanted) -> str:
    """SHA-256 of the file in place; raises DownloadError if it is not the one that is known."""
    found = sha256(wanted.path)
    if not found.startswith(wanted.digest):
        raise DownloadError(f"{wanted.path} has {_unlike(found, wanted)}. Delete it and run this again")
    return found


def _unlike(found: str, wanted: Wanted) -> str:
    beginning = "" if len(wanted.digest) == len(found) else "one that begins with "
    return f"the SHA-256 {found}, expected {beginning}{wanted.digest}"


def _refuse_plain_http(url: str) -> None:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in LOOPBACK):
        raise DownloadError(f"{url}: not HTTPS, so that anybody on the way could change the file. Refused")


@contextmanager
def _locked(lock: Path) -> Iterator[None]:
    """Wait until no other process is in here with the same ``lock``; on systems without flock there is no waiting."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("another process is downloading %s: waiting for it", lock.stem)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _download(wanted: Wanted) -> str:
    part = wanted.beside(".part")
    for attempt in range(1, ATTEMPTS + 1):
        if _fetch(wanted, part):
            break
        if attempt == ATTEMPTS:
            raise DownloadError(
                f"the connection to {wanted.url} was cut {ATTEMPTS} times; {part.stat().st_size} bytes are there. "
                "Run this again to go on from there"
            )
        time.sleep(PAUSE_S)
    found = sha256(part)
    wanted.beside(".part.version").unlink(missing_ok=True)
    if not found.startswith(wanted.digest):
        part.unlink()
        raise DownloadError(
            f"what {wanted.url} gave has {_unlike(found, wanted)}. It was deleted: the download was damaged, or the "
            "file is no longer the one that was published"
        )
    part.replace(wanted.path)
    return found


def _fetch(wanted: Wanted, part: Path) -> bool:
    """Bring what is missing of ``part``; whether that is all of it."""
    start = part.stat().st_size if part.is_file() else 0
    noted = wanted.beside(".part.version")
    version = noted.read_text() if noted.is_file() else ""
    if start and not version:  # these may be bytes of another file
        start = 0
    request = urllib.request.Request(wanted.url, headers={"User-Agent": f"gfl-edge/{__version__}"})
    if start:
        request.add_header("Range", f"bytes={start}-")
        request.add_header("If-Range", version)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            return _receive(response, wanted, part, start)
    except urllib.error.HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:  # all there, or too much: start over
            part.unlink(missing_ok=True)
            return False
        raise DownloadError(f"{wanted.url}: the server answers {error.code} {error.reason}") from error
    except (urllib.error.URLError, TimeoutError, http.client.HTTPException, ConnectionError) as error:
        reason = getattr(error, "reason", None) or error
        rest = f"; {start} bytes are there, from which it goes on when you run this again" if start else ""
        raise DownloadError(f"{wanted.url} cannot be reached ({reason}){rest}") from error


def _receive(response: Any, wanted: Wanted, part: Path, start: int) -> bool:
    """Append what the server sends to ``part``, or write it anew where the server begins at the beginning."""
    _refuse_plain_http(response.url)  # a redirection may lead anywhere
    if response.headers.get_content_type() == "text/html":
        raise DownloadError(f"{wanted.url} gave a web page instead of a file: it has moved, or wants a person's answer")
    sent = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    if response.status != http.client.PARTIAL_CONTENT or sent is None or int(sent[1]) != start:
        start = 0
    # What the server calls this state of the file; nothing where it says nothing that a range may rely on
    etag, modified = response.headers.get("ETag", ""), response.headers.get("Last-Modified", "")
    version = modified if etag.startswith("W/") else etag or modified
    write_atomically(wanted.beside(".part.version"), version.encode())
    length = response.headers.get("Content-Length")
    total = start + int(length) if length else 0
    label = f"downloading {wanted.path.name}"
    with (
        part.open("ab" if start else "wb") as file,
        progress_bar(label, total, done=start, unit="B", scaled=True) as bar,
    ):
        try:
            while chunk := response.read(CHUNK_BYTES):
                file.write(chunk)
                bar.update(len(chunk))
        except (TimeoutError, http.client.HTTPException, ConnectionError):  # what has come stays
            return False
    return bar.n == total or not total
