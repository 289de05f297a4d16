"""Download of a file: over HTTPS, resumed where it was cut, whole and checked before it has its name."""

from __future__ import annotations

import http.client
import logging
import os
import re
import shutil
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any, BinaryIO

from gfl_edge._version import __version__
from gfl_edge.errors import DownloadError, OutputError
from gfl_edge.files import cannot_write, sha256, write_atomically
from gfl_edge.progress import progress_bar

if sys.platform != "win32":
    import fcntl

logger = logging.getLogger(__name__)

TIMEOUT_S = 30.0  # without an answer or another byte
ATTEMPTS = 3  # each goes on where the one before was cut
PAUSE_S = 1.0  # between them
CHUNK_BYTES = 1 << 18
MAX_BYTES = 4 << 30  # of a file; published weights are below 1 GB
LOOPBACK = ("127.0.0.1", "localhost", "::1")  # where plain HTTP goes through nobody's hands
_VERSION = re.compile(r"[\x20-\x7e]{0,500}")  # of the server, as it may stand in a header


@dataclass(frozen=True)
class Wanted:
    """What to download.

    Attributes:
        url: where from; HTTPS, or HTTP on this machine itself.
        path: where to; beside it lie, until it is whole, ``.part`` with what has come so far and ``.part.version`` with
            what the server called the file.
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
        DownloadError: no connection, the server refuses or sends a web page, the connection was cut again and again,
            the disk is full, or the file has another digest. What has come stays for the next time, except a file with
            another digest.
    """
    _refuse_plain_http(wanted.url)
    try:
        wanted.path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(wanted) as part:
            return check(wanted) if part is None else _download(wanted, part)
    except OutputError as error:
        raise DownloadError(str(error)) from error
    except OSError as error:
        raise DownloadError(str(cannot_write(wanted.path, error))) from error


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
    try:
        parts = urllib.parse.urlsplit(url)
        refused = parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in LOOPBACK)
    except ValueError as error:
        raise DownloadError(f"{url!r} is no address ({error})") from error
    if refused:
        raise DownloadError(f"{url}: not HTTPS, so that anybody on the way could change the file. Refused")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows to where a download may come from, and asks nobody else."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        _refuse_plain_http(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@contextmanager
def _locked(wanted: Wanted) -> Iterator[BinaryIO | None]:
    """The part, open and locked, once no other process has it; None where the file is there by then.

    On systems without locks there is no waiting.
    """
    path = wanted.beside(".part")
    while True:
        if wanted.path.is_file():
            yield None
            return
        with path.open("ab") as part:
            _wait_for_lock(part, wanted)
            if _is_at(part, path) and not wanted.path.is_file():
                try:
                    yield part
                finally:
                    _remove_if_empty(part, wanted)
                return


def _wait_for_lock(part: BinaryIO, wanted: Wanted) -> None:
    if sys.platform == "win32":
        return
    try:
        fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        logger.info("another process is downloading %s: waiting for it", wanted.path.name)
        fcntl.flock(part, fcntl.LOCK_EX)


def _remove_if_empty(part: BinaryIO, wanted: Wanted) -> None:
    if not part.closed and not _size(part) and _is_at(part, wanted.beside(".part")):
        with suppress(OSError):  # where an open file cannot be removed
            wanted.beside(".part.version").unlink(missing_ok=True)
            wanted.beside(".part").unlink()


def _is_at(part: BinaryIO, path: Path) -> bool:
    """Whether the open file still has its name: who had the lock before may have finished it, or thrown it away."""
    try:
        return os.path.samestat(os.fstat(part.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _download(wanted: Wanted, part: BinaryIO) -> str:
    path, noted = wanted.beside(".part"), wanted.beside(".part.version")
    if not wanted.digest:  # nobody would notice that what an earlier process left is damaged
        part.truncate(0)
    damaged = True  # whether what is there already may be: then one more attempt is made from the beginning
    while True:
        resumed = _fetch_all(wanted, part)
        part.flush()
        os.fsync(part.fileno())
        found = sha256(path)
        if found.startswith(wanted.digest):
            break
        part.truncate(0)
        if not (resumed and damaged):
            path.unlink()
            noted.unlink(missing_ok=True)
            raise DownloadError(
                f"what {wanted.url} gave has {_unlike(found, wanted)}. It was deleted: the download was damaged, or "
                "the file is no longer the one that was published"
            )
        damaged = False
        logger.warning("what was there of %s was damaged: downloading it from the beginning", wanted.path.name)
    noted.unlink(missing_ok=True)
    if sys.platform == "win32":  # where an open file cannot be renamed
        part.close()
    path.replace(wanted.path)
    return found


def _fetch_all(wanted: Wanted, part: BinaryIO) -> bool:
    """Bring all of the part; whether it began with bytes that were there before."""
    resumed = _size(part) > 0
    for attempt in range(1, ATTEMPTS + 1):
        if _fetch(wanted, part):
            return resumed
        if attempt < ATTEMPTS:
            time.sleep(PAUSE_S)
    raise DownloadError(
        f"the connection to {wanted.url} was cut {ATTEMPTS} times; {_size(part)} bytes are there. "
        "Run this again to go on from there"
    )


def _size(part: BinaryIO) -> int:
    return os.fstat(part.fileno()).st_size


def _fetch(wanted: Wanted, part: BinaryIO) -> bool:
    """Bring what is missing of ``part``; whether that is all of it."""
    start, version = _size(part), _noted_version(wanted)
    if start and not version:  # these may be bytes of another file
        start = 0
    request = urllib.request.Request(wanted.url, headers={"User-Agent": f"gfl-edge/{__version__}"})
    if start:
        request.add_header("Range", f"bytes={start}-")
        request.add_header("If-Range", version)
    try:
        with urllib.request.build_opener(_Redirects).open(request, timeout=TIMEOUT_S) as response:
            return _receive(response, wanted, part, start, version)
    except urllib.error.HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and start:  # all there, or too much: start over
            part.truncate(0)
            return False
        raise DownloadError(f"{wanted.url}: the server answers {error.code} {error.reason}") from error
    except (urllib.error.URLError, TimeoutError, http.client.HTTPException, ConnectionError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        rest = f"; {start} bytes are there, from which it goes on when you run this again" if start else ""
        raise DownloadError(f"{wanted.url} cannot be reached ({reason}){rest}") from error


def _noted_version(wanted: Wanted) -> str:
    """What the server called the file of which ``.part`` is one; "" where that is not known, or damaged."""
    try:
        text = wanted.beside(".part.version").read_text(encoding="ascii")
    except (OSError, ValueError):
        return ""
    return text if _VERSION.fullmatch(text) else ""


def _receive(response: Any, wanted: Wanted, part: BinaryIO, start: int, version: str) -> bool:
    """Append what the server sends to ``part``, or write it anew where the server begins at the beginning."""
    headers: Message = response.headers
    if headers.get_content_type() == "text/html":
        raise DownloadError(f"{wanted.url} gave a web page instead of a file: it has moved, or wants a person's answer")
    if (encoding := headers.get("Content-Encoding", "identity")) != "identity":
        raise DownloadError(f"{wanted.url} gave the file in the encoding {encoding!r}, which was not asked for")
    now = _version_of(headers)
    if response.status == http.client.PARTIAL_CONTENT:
        sent = re.match(r"bytes (\d{1,18})-", headers.get("Content-Range", ""))
        if not start or sent is None or int(sent[1]) != start or now not in ("", version):
            logger.warning("%s gave another part than was asked for: starting over", wanted.url)
            part.truncate(0)
            return False
    elif response.status != http.client.OK:
        raise DownloadError(f"{wanted.url}: the server answers {response.status} {response.reason}, expected 200 OK")
    else:
        start = 0
        part.truncate(0)
        write_atomically(wanted.beside(".part.version"), now.encode(), durable=False)
    length = headers.get("Content-Length", "")
    total = start + int(length) if re.fullmatch(r"\d{1,18}", length) else 0
    _refuse_too_large(wanted, total - start, total)
    label = f"downloading {wanted.path.name}"
    with progress_bar(label, total, done=start, unit="B", scaled=True) as bar:
        try:
            while chunk := response.read(CHUNK_BYTES):
                part.write(chunk)
                bar.update(len(chunk))
                _refuse_too_large(wanted, 0, int(bar.n))
        except (TimeoutError, http.client.HTTPException, ConnectionError):  # what has come stays
            return False
        finally:
            part.flush()
    return bar.n == total or not total


def _version_of(headers: Message) -> str:
    """What the server calls this state of the file; "" where it says nothing that a range may rely on."""
    etag, modified = headers.get("ETag", ""), headers.get("Last-Modified", "")
    version = str(modified if etag.startswith("W/") else etag or modified)
    return version if _VERSION.fullmatch(version) else ""


def _refuse_too_large(wanted: Wanted, missing_bytes: int, total_bytes: int) -> None:
    """Raise DownloadError for more than is published, or than the disk has room for."""
    if total_bytes > MAX_BYTES:
        raise DownloadError(f"{wanted.url} gives more than {MAX_BYTES / 1e9:.1f} GB, which no published file has")
    free = shutil.disk_usage(wanted.path.parent).free if missing_bytes else missing_bytes
    if free < missing_bytes:
        raise DownloadError(
            f"{wanted.path} cannot be written: {missing_bytes / 1e6:.0f} MB are missing and {free / 1e6:.0f} MB are "
            "free on its disk. Make room there"
        )
