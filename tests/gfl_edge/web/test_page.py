"""What a page answers while a run goes on, and around it."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
import threading
import time

import cv2
import numpy as np
import pytest

from gfl_edge.camera import run_camera
from gfl_edge.cli import camera
from gfl_edge.cli import main as cli
from gfl_edge.detections import Detections
from gfl_edge.errors import InputError
from gfl_edge.filters import DetectionFilter
from gfl_edge.media.draw import draw_detections
from gfl_edge.web import images
from gfl_edge.web.live import LiveFrame, Run
from gfl_edge.web.page import LivePage
from tests.support.fake_detector import FakeDetector
from tests.support.fake_sources import FakeSource, Sources
from tests.support.live_page import Running, ask, wait_until


def decoded(jpeg: bytes) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return image


def drawn_classes(jpeg: bytes) -> list[int]:
    """Which of the two classes have a box: on the gray frame there is color at the middle of its lower edge."""
    image = decoded(jpeg).astype(int)
    height, width = image.shape[:2]
    return [class_id for class_id, x in ((0, width // 4), (1, 3 * width // 4)) if np.ptp(image[height - 1, x]) > 20]


def test_images_follow_the_run(running: Running) -> None:
    numbers = []
    for _ in range(4):
        found = running.get(f"/frame/0.jpg?after={numbers[-1] if numbers else 0}")
        assert (found.status, found.headers["content-type"]) == (200, "image/jpeg")
        numbers.append(int(found.headers["x-frame"]))
    assert numbers == sorted(set(numbers))
    assert decoded(found.body).shape == (96, 128, 3)


def test_the_score_changes_the_image_and_not_the_run(running: Running) -> None:
    """The detector finds a person (0.9) and a dog (0.2); the run draws from 0.35 on."""
    assert drawn_classes(running.get("/frame/0.jpg").body) == [0]
    assert drawn_classes(running.get("/frame/0.jpg?score=0.1").body) == [0, 1]
    assert drawn_classes(running.get("/frame/0.jpg?score=0.95").body) == []
    assert drawn_classes(running.get("/snapshot/0.jpg?score=0.2").body) == [0, 1]
    assert drawn_classes(running.get("/snapshot/0.jpg").body) == [0]
    assert running.stats()["score"] == 0.35


def test_identities_stay_where_more_is_drawn() -> None:
    """Below the score of the run nothing is followed, and what it follows keeps its number on the page."""
    boxes = np.float32([[10, 10, 60, 60], [10, 10, 60, 60], [70, 10, 90, 60]])
    scores, class_ids = np.float32([0.9, 0.9, 0.2]), np.int32([0, 1, 0])
    found = Detections(boxes, scores, class_ids, ("person", "dog"))
    followed = dataclasses.replace(found[:2][::-1], track_ids=np.int64([8, 7]))
    image = np.full((96, 128, 3), 114, np.uint8)
    frame = LiveFrame(1, image, found, followed, 0.0)
    keep = DetectionFilter(score=0.35)
    run = Run(keep, keep, FakeDetector().backend, False, lambda: None)  # type: ignore[arg-type, return-value]
    expected = draw_detections(image, dataclasses.replace(found, track_ids=np.int64([7, 8, -1])))
    _, jpeg = cv2.imencode(".jpg", expected, [cv2.IMWRITE_JPEG_QUALITY, images.SNAPSHOT_QUALITY])
    assert images.annotated(frame, run, images.Kind(0, 0.1, "full")) == bytes(jpeg)
    assert (expected != draw_detections(image, found)).any()
    assert images.identified(found, found) is found


def test_a_snapshot_is_the_whole_frame_with_its_boxes() -> None:
    source = FakeSource("large", 3, hw=(1000, 2000), hangs=threading.Event())
    with Running(LivePage("0"), source) as run:
        wait_until(lambda: run.delivered() == 3)
        found = run.get("/snapshot/0.jpg")
        assert re.fullmatch(r'attachment; filename="source-0-frame-\d+\.jpg"', found.headers["content-disposition"])
        frame = run.page.live.frames[0]
        assert frame is not None
        expected = draw_detections(frame.image, DetectionFilter(score=0.35).apply(frame.found))
        assert np.abs(decoded(found.body).astype(int) - expected).mean() < 2
        assert decoded(run.get("/frame/0.jpg").body).shape == (640, 1280, 3)
        assert decoded(run.get("/frame/0.jpg?side=small").body).shape == (320, 640, 3)
        start = time.monotonic()
        assert run.get("/frame/0.jpg?after=3").status == 204, "no newer one comes"
        assert 1.0 < time.monotonic() - start < 10
        source.hangs.set()


def test_an_image_is_made_once_for_all(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten that watch the same for a second cost what one does, and nobody costs nothing."""
    made = []
    annotated = images.annotated
    monkeypatch.setattr(images, "annotated", lambda *given: (made.append(given), annotated(*given))[1])

    def watch() -> None:
        until = time.monotonic() + 1
        while time.monotonic() < until:
            assert running.get("/frame/0.jpg").status == 200

    threads = [threading.Thread(target=watch) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 2 <= len(made) <= 1.5 * images.IMAGES_PER_SECOND + 3
    count, delivered = len(made), running.delivered()
    wait_until(lambda: running.delivered() > delivered + 10)
    assert len(made) == count


def test_a_page_that_is_busy_does_not_hold_up_the_run(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    went_on = threading.Event()
    monkeypatch.setattr(images, "annotated", lambda *_: (went_on.wait(20), b"")[1])
    asking = threading.Thread(target=running.get, args=("/frame/0.jpg",))
    asking.start()
    delivered = running.delivered()
    wait_until(lambda: running.delivered() >= delivered + 30)
    went_on.set()
    asking.join()


def test_statistics(running: Running) -> None:
    wait_until(lambda: running.delivered() > 30)
    stats = running.stats()
    assert (stats["status"], stats["viewers"]) == ("running", 1)
    run = stats["run"]
    assert (run["model"], run["backend"]) == ("fake", "fake")
    assert (run["stage_ms"]["network"], run["stage_ms"]["postprocess"]) == (20.0, 0.5)
    assert run["stage_ms"]["read"] > 10
    (source,) = run["sources"]
    assert (source["name"], source["live"], source["away"], source["error"]) == ("cam", True, False, None)
    assert source["frames"] > 30
    assert 5 < source["fps"] < 60
    assert 0 < source["latency_ms"]["p50"] <= source["latency_ms"]["p90"] <= source["latency_ms"]["p99"]
    assert source["size_wh"] == [128, 96]
    assert set(stats["device"]["missing"]) == {"temperature", "power"}


def test_the_metrics_are_what_prometheus_reads(running: Running) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    wait_until(lambda: running.delivered() > 20)
    found = running.get("/metrics")
    assert found.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(found.body.decode())
        for sample in family.samples
    }
    assert samples["gfl_edge_state", "running"] == 1
    assert samples["gfl_edge_frames_total", "0"] > 20
    assert samples["gfl_edge_reconnects_total", "0"] == 0
    assert samples["gfl_edge_stage_seconds", "network"] == 0.02
    assert samples["gfl_edge_latency_seconds_bucket", "+Inf", "0"] == samples["gfl_edge_latency_seconds_count", "0"]
    buckets = [value for (name, *_), value in samples.items() if name == "gfl_edge_latency_seconds_bucket"]
    assert buckets == sorted(buckets)
    assert samples["gfl_edge_source_info", "0", "cam"] == 1


def test_several_sources_and_one_that_fails() -> None:
    good = FakeSource("good <b>", None, live=True, period_s=0.02)
    bad = FakeSource("bad", 2, error=InputError("rtsp://user:secret@cam is gone"))
    with Running(LivePage("0"), good, bad) as run:
        wait_until(lambda: run.stats()["run"]["sources"][1]["error"])
        sources = run.stats()["run"]["sources"]
        assert [source["name"] for source in sources] == ["good <b>", "bad"]
        assert "secret" not in json.dumps(sources)
        assert run.get("/frame/1.jpg").status in (200, 204)
        assert run.get("/frame/2.jpg").status == 404


def test_starting_running_ended() -> None:
    page = LivePage("0")
    with page:
        assert json.loads(ask(page, "/healthz").body) == {"status": "starting"}
        assert ask(page, "/healthz").status == 503
        stats = json.loads(ask(page, "/stats.json").body)
        assert (stats["status"], stats["run"]) == ("starting", None)
        assert ask(page, "/metrics").status == 200
        assert ask(page, "/frame/0.jpg").status == 404
        summary = run_camera(FakeDetector(), FakeSource(count=5), show=False, serve=page)
        assert summary.frames == 5
        assert (ask(page, "/healthz").status, json.loads(ask(page, "/healthz").body)["status"]) == (503, "ended")
        assert ask(page, "/frame/0.jpg").status == 200, "the last frame stays"
        assert run_camera(FakeDetector(), FakeSource(count=2), show=False, serve=page).frames == 2
    with pytest.raises(ConnectionRefusedError):
        ask(page, "/healthz")


def test_from_python_by_its_address() -> None:
    seen = []
    page_port = free_port()

    def look(*_: object) -> None:
        if not seen:
            connected = LivePage(str(page_port))  # only its address is used
            seen.append(ask(connected, "/healthz").status)

    run_camera(FakeDetector(), FakeSource(count=3), show=False, serve=f"127.0.0.1:{page_port}", on_frame=look)
    assert seen == [200]
    with pytest.raises(InputError, match="a token is needed"):
        run_camera(FakeDetector(), FakeSource(count=3), show=False, serve="0.0.0.0:0")


def free_port() -> int:
    from gfl_edge.web.address import Address, listen

    with listen(Address("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def test_a_port_in_use_is_known_before_the_model_loads(sources: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    with LivePage("0") as page:
        words = ["camera", "--serve", str(page.address.port), "--model", "there-is-none.onnx", "--headless"]
        done = subprocess.run(
            [sys.executable, "-m", "gfl_edge", *words], capture_output=True, text=True, timeout=60, check=False
        )
    assert done.returncode == 1
    assert done.stderr.startswith(
        f"gfl-edge: error: the live page cannot be served at 127.0.0.1 port {page.address.port}"
    )
    assert len(done.stderr.splitlines()) == 1


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch) -> Sources:
    return Sources(monkeypatch)


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--serve", "host"], 2, "argument --serve: 'host': expected [HOST:]PORT"),
        (["--serve", "80", "--serve-token", "my secret"], 2, "argument --serve-token: the token: expected 16 to 200"),
        (["--serve-token", "0123456789abcdef"], 1, "--serve-token is for the live page"),
    ],
)
def test_wrong_options(capsys: pytest.CaptureFixture[str], words: list[str], status: int, said: str) -> None:
    try:
        ended = cli.main(["camera", *words])
    except SystemExit as exit_:
        ended = exit_.code
    written = capsys.readouterr().err
    assert ended == status
    assert said in written
    assert "secret" not in written
    assert "0123456789abcdef" not in written


def test_the_command_prints_the_token_that_it_makes_and_no_other(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for chosen in (None, "0123456789abcdef"):
        monkeypatch.setenv(camera.TOKEN_VARIABLE, chosen or "")
        assert cli.main(["camera", "--serve", "0.0.0.0:0", "--source", "there-is-none.mp4", "--headless"]) == 1
        first = capsys.readouterr().err.splitlines()[0]
        assert re.fullmatch(r"live page: http://[^/]+:\d+/" + ("" if chosen else r"\?token=[\w-]{32}"), first)
