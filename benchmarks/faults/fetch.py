"""A download from a server on this machine, as a command: python benchmarks/faults/fetch.py URL PATH SHA256."""

from __future__ import annotations

import argparse
import hashlib
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

if __package__ in (None, ""):  # run as a script: the checkout's packages are not installed
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from gfl_edge.console import run_command
from gfl_edge.zoo.download import Wanted, download

CONTENT = bytes(range(256)) * 8000
DIGEST = hashlib.sha256(CONTENT).hexdigest()
PIECE_BYTES = 100_000
SECONDS = 0.4  # of an answer


class _Handler(BaseHTTPRequestHandler):
    """Serves ``CONTENT`` slowly, from where it is asked to."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Answer."""
        wanted = self.headers.get("Range", "")
        start = int(wanted[len("bytes=") : -1]) if wanted and self.headers.get("If-Range") == '"one"' else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.send_header("ETag", '"one"')
        self.end_headers()
        for at in range(start, len(CONTENT), PIECE_BYTES):
            try:
                self.wfile.write(CONTENT[at : at + PIECE_BYTES])
            except OSError:  # who asked was killed
                self.close_connection = True
                return
            time.sleep(SECONDS * PIECE_BYTES / len(CONTENT))


@contextmanager
def server() -> Iterator[str]:
    """While entered, the address of the file."""
    listening = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    listening.daemon_threads = True
    thread = threading.Thread(target=listening.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.server_address[1]}/model.pth"
    finally:
        listening.shutdown()
        thread.join()
        listening.server_close()


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="benchmarks/faults/fetch.py", description=__doc__)
    parser.add_argument("url")
    parser.add_argument("path", type=Path)
    parser.add_argument("digest")
    return run_command(parser, _run, argv)


def _run(args: argparse.Namespace) -> int:
    print(download(Wanted(args.url, args.path, args.digest)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
