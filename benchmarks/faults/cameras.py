"""Cameras and streams that stall, drop, change or lie: the run goes on, or ends with one sentence."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from benchmarks.faults import rtsp_camera
from benchmarks.faults.case import Case
from benchmarks.faults.http_camera import ANSWERS, PASSWORD, USER, http_camera
from benchmarks.faults.process import MAX_SECONDS, Ended, environment, heed_signals, run, words_of
from benchmarks.faults.rtsp_camera import RtspServer, between
from gfl_edge.media.opening import open_source

FRAMES = 30  # of a run: more than come before a fault
WAIT_SECONDS = 25.0  # that a run tries to reach a camera that is away: more than two of FFmpeg's timeouts
BRIEF_SECONDS = 3.0  # where it is to give up
RTSP_LOGIN = "admin", "s3cretpass"
TEN, BROKEN = 10, 2

# Where no frame can come, of the HTTP camera's answers
HOPELESS = ("/redirect/in-a-circle", "/redirect/to-a-file", "/redirect/to-nobody")
RTSP_FAULTS = {
    "drops": (rtsp_camera.cut,),
    "stalls": (rtsp_camera.stall,),
    "sends garbage": (rtsp_camera.noise, rtsp_camera.flips, rtsp_camera.flips_in_images, rtsp_camera.doubled),
}
GOOD_BYTES = (0, 3000, 60_000)  # in the answers that come first, and between the frames

logger = logging.getLogger(__name__)


def cases() -> Iterator[Case]:
    """See the module. Without GStreamer's RTSP server its cases are left out, and the log says so."""
    for path in ANSWERS:
        what = path.split("/")[1]
        if path not in HOPELESS:
            yield Case(path, f"camera over HTTP, {what}", partial(_goes_on, path=path))
        if path in HOPELESS or path.startswith("/refuse"):
            yield Case(f"{path} for ever", f"camera over HTTP, {what}", partial(_gives_up, path=path))
    for login in ("right", "wrong", "none"):
        yield Case(login, "camera over HTTP, password", partial(_http_password, login=login))
    for how in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        yield Case(how.name, "camera over HTTP, run asked to stop", partial(_asked_to_stop, how=how))
    yield Case("ten HTTP cameras", "ten sources, two broken", _ten_sources)
    if reason := rtsp_camera.why_no_server():
        logger.warning("RTSP was left out: %s", reason)
        return
    for what, faults in RTSP_FAULTS.items():
        for fault in faults:
            for good_bytes in GOOD_BYTES:
                case = partial(_rtsp, fault=fault, good_bytes=good_bytes)
                yield Case(f"{fault.__name__} after {good_bytes} bytes", f"camera over RTSP, {what}", case)
    for login in ("right", "wrong", "none"):
        yield Case(login, "camera over RTSP, password", partial(_rtsp_password, login=login))
    for what in ("off and on", "stopped and on"):
        yield Case(what, "camera over RTSP, switched", partial(_rtsp_switched, what=what))
    yield Case("not there at first", "camera over RTSP, comes late", _rtsp_late)


def _camera(folder: Path, *sources: str, seconds: float = WAIT_SECONDS, frames: int = FRAMES) -> Ended:
    """Run the command; whatever it says or writes has no password in it."""
    words = [word for source in sources for word in ("--source", source)]
    lines = folder / "lines.jsonl"
    limits = ["--max-frames", str(frames), "--reconnect-seconds", str(seconds)]
    ended = run(["gfl-edge", "camera", *words, "--headless", "--json-lines", lines, *limits], folder)
    said = ended.stdout + ended.stderr + (lines.read_text() if lines.exists() else "")
    for secret in (PASSWORD, quote(PASSWORD, safe=""), RTSP_LOGIN[1], "s3cret"):
        assert secret not in said, "a password was shown"
    assert "Traceback" not in ended.stderr, f"a traceback: {ended.stderr[-300:]}"
    return ended


def _summary(ended: Ended) -> dict[str, Any]:
    assert ended.status == 0, f"status {ended.status}: {ended.stderr[-300:]}"
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def _goes_on(folder: Path, path: str) -> None:
    with http_camera() as camera:
        ended = _camera(folder, f"{camera.url}{path}")
        assert _summary(ended)["frames"] == FRAMES


def _gives_up(folder: Path, path: str) -> None:
    with http_camera(faults=10**9) as camera:
        _camera(folder, f"{camera.url}{path}", seconds=BRIEF_SECONDS).check_one_sentence()


def _http_password(folder: Path, login: str) -> None:
    password = PASSWORD if login == "right" else "s3cretx"
    user = "" if login == "none" else f"{USER}:{quote(password, safe='')}@"
    with http_camera() as camera:
        url = camera.url.replace("://", f"://{user}") + "/password"
        if login == "right":
            assert _summary(_camera(folder, url))["frames"] == FRAMES
        else:
            _camera(folder, url, seconds=BRIEF_SECONDS).check_one_sentence()


def _asked_to_stop(folder: Path, how: signal.Signals) -> None:
    """What was recorded until then is kept, the same frames in each output."""
    lines, video = folder / "lines.jsonl", folder / "video.mp4"
    with http_camera() as camera:
        words = ["gfl-edge", "camera", "--source", f"{camera.url}/good", "--headless", "--track"]
        command = words_of([*words, "--json-lines", lines, "--output", video])
        with subprocess.Popen(
            command, cwd=folder, env=environment(folder), preexec_fn=heed_signals, stdout=subprocess.DEVNULL
        ) as process:
            deadline = time.monotonic() + MAX_SECONDS
            while time.monotonic() < deadline and not (lines.exists() and lines.read_bytes().count(b"\n") >= FRAMES):
                time.sleep(0.02)
            process.send_signal(how)
            assert process.wait(MAX_SECONDS) == 0
    with open_source(video) as frames:
        assert sum(1 for _ in frames) == lines.read_bytes().count(b"\n") >= FRAMES


def _ten_sources(folder: Path) -> None:
    with http_camera(faults=10**9) as camera:
        broken = ["/refuse/404", "/garbage/noise-at-once"]
        sources = [f"{camera.url}{path}" for path in [*(f"/good-{i}" for i in range(TEN - BROKEN)), *broken]]
        found = _summary(_camera(folder, *sources, seconds=BRIEF_SECONDS, frames=20 * TEN))["sources"]
    frames = [source["frames"] for source in found]
    assert all(frames[: TEN - BROKEN]), f"a good one gave nothing: {frames}"
    assert not any(frames[TEN - BROKEN :])
    assert all(source["error"] is None for source in found[: TEN - BROKEN])


def _rtsp(folder: Path, fault: rtsp_camera.Fault, good_bytes: int) -> None:
    with RtspServer() as server, between(server.port, fault, good_bytes=good_bytes) as port:
        assert _summary(_camera(folder, f"rtsp://127.0.0.1:{port}/small"))["frames"] == FRAMES


def _rtsp_password(folder: Path, login: str) -> None:
    user = {"right": ":".join(RTSP_LOGIN) + "@", "wrong": f"{RTSP_LOGIN[0]}:s3cretx@", "none": ""}[login]
    with RtspServer(*RTSP_LOGIN) as server:
        url = f"rtsp://{user}127.0.0.1:{server.port}/small"
        if login == "right":
            assert _summary(_camera(folder, url))["frames"] == FRAMES
        else:
            _camera(folder, url, seconds=BRIEF_SECONDS).check_one_sentence()


def _rtsp_switched(folder: Path, what: str) -> None:
    """While the run lasts, which takes longer than its 200 frames at 25 per second do."""
    with RtspServer() as server:

        def switch() -> None:
            if what == "off and on":
                server.kill()
                server.start()
            else:
                server.process.send_signal(signal.SIGSTOP)
                threading.Timer(3, server.process.send_signal, [signal.SIGCONT]).start()

        timer = threading.Timer(8, switch)
        timer.start()
        try:
            assert _summary(_camera(folder, f"rtsp://127.0.0.1:{server.port}/small", frames=300))["frames"] == 300
        finally:
            timer.cancel()


def _rtsp_late(folder: Path) -> None:
    with RtspServer() as server:
        server.kill()
        timer = threading.Timer(8, server.start)
        timer.start()
        assert _summary(_camera(folder, f"rtsp://127.0.0.1:{server.port}/large"))["frames"] == FRAMES
        timer.join()
