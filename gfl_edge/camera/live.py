"""What a run has to do with its live page: opening it, and how the run goes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sized
from contextlib import ExitStack

from gfl_edge.camera.feeds import Feed, Feeds
from gfl_edge.camera.status import StageTimes
from gfl_edge.detector import Detector
from gfl_edge.errors import InputError
from gfl_edge.redact import redact
from gfl_edge.web.live import LATENCY_ENDS_S, Live, RunStatistics, SourceStatistics
from gfl_edge.web.page import LivePage


def live_of(serve: str | LivePage, stack: ExitStack) -> Live:
    """Where the run writes for its page; a page that is not open yet is, as long as ``stack`` lasts."""
    page = serve if isinstance(serve, LivePage) else LivePage(str(serve))
    if page.token and page is not serve:
        raise InputError(
            f"{serve}: others reach this address, so that a token is needed. Give a "
            "gfl_edge.web.page.LivePage instead, which has one (page.url)"
        )
    if not page.open:
        stack.enter_context(page)
    stack.callback(page.live.end)
    return page.live


def run_statistics(
    detector: Detector, feeds: Feeds, times: StageTimes, waiting: Mapping[str, Sized], start_s: float
) -> RunStatistics:
    """What a run that began at ``start_s`` (``time.perf_counter``) does now; may be called in any thread."""
    return RunStatistics(
        model=detector.spec.name,
        backend=detector.backend.name,
        seconds=time.perf_counter() - start_s,
        stage_ms=times.recent_ms(),
        waiting={name: len(queue) for name, queue in list(waiting.items())},
        sources=tuple(map(_source_statistics, feeds.feeds)),
    )


def _source_statistics(feed: Feed) -> SourceStatistics:
    source, latency = feed.source, feed.latency
    percentiles = {f"p{percent}": latency.percentile_ms(percent) for percent in (50, 90, 99)}
    return SourceStatistics(
        name=feed.name,
        live=feed.live,
        away=feed.away,
        ended=feed.inbox.over,
        frames=feed.delivered,
        fps=feed.rate.fps(),
        latency_ms={**percentiles, "max": latency.max_ms},
        latency_counts=latency.counts_up_to([1000 * end for end in LATENCY_ENDS_S]),
        latency_sum_s=latency.sum_ms / 1000,
        dropped=feed.inbox.dropped,
        reconnects=source.reconnects if source else 0,
        skipped=len(source.skipped) if source else 0,
        invalid=feed.invalid,
        error=None if feed.error is None else redact(str(feed.error)),
    )
