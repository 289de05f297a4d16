"""The page in a real Chromium: images move, numbers change, the slider draws anew, phones have room for it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from gfl_edge.web.page import LivePage
from tests.support.browser import Browser
from tests.support.fake_sources import FakeSource
from tests.support.live_page import Running, close_all, connect

IMAGE = "document.querySelectorAll('img')[{}]"
NUMBER = f"Number({IMAGE}.dataset.frame)"
# Whether there is color at the middle of the lower edge of the right half, where the dog's box is
DOG = """(() => {{
  const image = document.querySelectorAll('img')[{0}], canvas = document.createElement('canvas');
  canvas.width = image.naturalWidth; canvas.height = image.naturalHeight;
  const drawing = canvas.getContext('2d');
  drawing.drawImage(image, 0, 0);
  const seen = drawing.getImageData(canvas.width * 3 / 4, canvas.height - 1, 1, 1).data.slice(0, 3);
  return Math.max(...seen) - Math.min(...seen) > 20;
}})()"""
MOVE = """(() => {{
  const slider = document.getElementById('score');
  slider.value = '{}';
  slider.dispatchEvent(new Event('input'));
  return true;
}})()"""


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    opened = Browser(tmp_path)
    opened.call("Page.enable")
    yield opened
    opened.close()


@pytest.fixture
def run() -> Iterator[Running]:
    """Two cameras, behind a token."""
    cameras = [FakeSource(name, None, live=True, period_s=0.04, hw=(240, 320)) for name in ("door", "<b>yard</b>")]
    with Running(LivePage("127.0.0.1:0", "0123456789abcdef"), *cameras) as running:
        yield running


def test_the_page(browser: Browser, run: Running, tmp_path: Path) -> None:
    browser.size(1366, 768)
    browser.open(run.page.url)
    browser.wait(f"{IMAGE.format(1)} && {NUMBER.format(0)} > 0 && {NUMBER.format(1)} > 0")
    assert browser.run("location.href") == run.page.address.url, "the token does not stay in the address"
    assert browser.run("document.getElementById('state').textContent") == "running"
    assert browser.run("[...document.querySelectorAll('.card h2')].slice(0, 2).map(h => h.textContent).join()") == (
        "door,<b>yard</b>"
    )
    for source in (0, 1):  # moves
        before = browser.run(NUMBER.format(source))
        browser.wait(f"{NUMBER.format(source)} > {before} + 3")
    text = browser.run("document.getElementById('run').innerText")
    browser.wait(f"document.getElementById('run').innerText !== {json.dumps(text)}")
    assert {"FPS", "latency p50", "p99", "dropped", "reconnects"} <= set(
        browser.run("[...document.querySelectorAll('.card dt')].map(name => name.textContent)")
    )
    # The slider draws the dog of 0.2, and the run stays as it is
    assert browser.run(DOG.format(0)) is False
    assert browser.run(MOVE.format("0.10"))
    browser.wait(DOG.format(0))
    browser.wait(DOG.format(1))
    assert "score=0.10" in browser.run("document.querySelector('a.button').href")
    assert run.page.live.run is not None
    assert run.page.live.run.keep.score == 0.35
    assert browser.run("document.getElementById('reset').click() || true")
    browser.wait(f"!{DOG.format(0)}")
    size = browser.run("fetch(document.querySelector('a.button').href).then(answer => answer.blob()).then(b => b.size)")
    assert size > 1000, "the snapshot"
    for width, height, phone in ((1366, 768, False), (390, 844, True)):
        browser.size(width, height, phone=phone)
        browser.wait(f"innerWidth === {width} && document.documentElement.scrollWidth === {width}")
        browser.screenshot(tmp_path / f"{width}.png")
        assert (tmp_path / f"{width}.png").stat().st_size > 10_000


def test_clients_that_stall_leave_the_page_moving(browser: Browser, run: Running) -> None:
    request = b"GET /snapshot/0.jpg?token=0123456789abcdef HTTP/1.1\r\nHost: localhost\r\n\r\n"
    stalled = [connect(run.page, request * 100) for _ in range(3)]
    browser.open(run.page.url)
    browser.wait(f"{IMAGE.format(0)} && {NUMBER.format(0)} > 0")
    before = browser.run(NUMBER.format(0))
    browser.wait(f"{NUMBER.format(0)} > {before} + 10")
    close_all(stalled)


def test_the_page_says_when_the_run_is_over(browser: Browser, run: Running) -> None:
    browser.open(run.page.url)
    browser.wait("document.getElementById('state')?.textContent === 'running'")
    run.stop()
    browser.wait("document.getElementById('state').textContent === 'ended'")
    browser.wait("document.querySelector('.view p').textContent === 'no more frames come'")
    run.page.__exit__(None, None, None)
    browser.wait("document.getElementById('state').textContent.startsWith('no connection')")
