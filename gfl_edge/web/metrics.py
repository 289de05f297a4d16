"""What Prometheus asks for (prometheus-client, the extra ``web``)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, get_args

from gfl_edge import optional
from gfl_edge._version import __version__
from gfl_edge.web.device import DeviceState
from gfl_edge.web.live import LATENCY_ENDS_S, Live, Phase, RunStatistics, SourceStatistics

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def exposition(live: Live, statistics: RunStatistics | None, device: DeviceState, viewers: int) -> bytes:
    """The metrics as text of Prometheus' format 0.0.4; ``statistics`` is None before there is a run."""
    client = optional.load("prometheus_client")
    registry = client.CollectorRegistry(auto_describe=False)
    registry.register(_Collector(live, statistics, device, viewers))
    text: bytes = client.generate_latest(registry)
    return text


class _Collector:
    """All metrics at one moment, as prometheus-client asks for them."""

    def __init__(self, live: Live, statistics: RunStatistics | None, device: DeviceState, viewers: int) -> None:
        self._live, self._statistics, self._device, self._viewers = live, statistics, device, viewers
        self._core = optional.load("prometheus_client.core")

    def collect(self) -> Iterator[Any]:
        phases = {phase: float(phase == self._live.phase) for phase in get_args(Phase)}
        yield self._gauge("state", "Where the run stands: 1 for one of the states.", "state", phases)
        yield self._gauge("viewers", "Who watches the live page.", None, {"": float(self._viewers)})
        sensors, rails = self._device.temperatures_c, self._device.powers_w
        yield self._gauge("temperature_celsius", "Of the device, by sensor.", "sensor", sensors)
        yield self._gauge("power_watts", "What the device takes, by rail.", "rail", rails)
        if self._statistics is not None:
            yield from self._of_run(self._statistics)

    def _of_run(self, run: RunStatistics) -> Iterator[Any]:
        info = self._core.InfoMetricFamily("gfl_edge", "Version, model, and what runs it.")
        info.add_metric([], {"version": __version__, "model": run.model, "backend": run.backend})
        yield info
        names = self._core.InfoMetricFamily("gfl_edge_source", "Names of the sources.", labels=["source"])
        for number, source in enumerate(run.sources):
            names.add_metric([str(number)], {"name": source.name})
        yield names
        stages = {stage: ms / 1000 for stage, ms in run.stage_ms.items()}
        yield self._gauge("stage_seconds", "Of a frame in each stage, mean of the last two seconds.", "stage", stages)
        waiting = {stage: float(count) for stage, count in run.waiting.items()}
        yield self._gauge("waiting_frames", "Frames that wait in front of each stage.", "stage", waiting)
        yield from self._of_sources(run.sources)

    def _of_sources(self, sources: tuple[SourceStatistics, ...]) -> Iterator[Any]:
        counters: tuple[tuple[str, str, Callable[[SourceStatistics], int]], ...] = (
            ("frames", "Frames that were detected in.", lambda source: source.frames),
            ("dropped_frames", "Frames that were too old when their turn came.", lambda source: source.dropped),
            ("reconnects", "How often a source was opened again.", lambda source: source.reconnects),
            ("skipped_images", "Image files that could not be used.", lambda source: source.skipped),
            ("invalid_candidates", "What the model gave that can be no detection.", lambda source: source.invalid),
        )
        for name, text, count in counters:
            family = self._core.CounterMetricFamily(f"gfl_edge_{name}", text, labels=["source"])
            for number, source in enumerate(sources):
                family.add_metric([str(number)], count(source))
            yield family
        fps = {str(number): source.fps for number, source in enumerate(sources)}
        yield self._gauge("fps", "Frames per second of the last seconds.", "source", fps)
        away = {str(number): float(source.away) for number, source in enumerate(sources)}
        yield self._gauge("source_away", "1 while a source is waited for.", "source", away)
        failed = {str(number): float(source.error is not None) for number, source in enumerate(sources)}
        yield self._gauge("source_failed", "1 if a source has failed and is left out.", "source", failed)
        now = time.monotonic()
        ages = {str(i): now - frame.shown_s for i, frame in enumerate(self._live.frames) if frame is not None}
        yield self._gauge("seconds_since_frame", "Since the newest frame.", "source", ages)
        latency = self._core.HistogramMetricFamily(
            "gfl_edge_latency_seconds", "From capture to delivery, exact to 5 %.", labels=["source"]
        )
        for number, source in enumerate(sources):
            ends = [*(repr(end) for end in LATENCY_ENDS_S), "+Inf"]
            counts = [*source.latency_counts, max(source.frames, source.latency_counts[-1])]
            buckets = list(zip(ends, counts, strict=True))
            latency.add_metric([str(number)], buckets, source.latency_sum_s)
        yield latency

    def _gauge(self, name: str, text: str, label: str | None, values: Mapping[str, float]) -> Any:
        family = self._core.GaugeMetricFamily(f"gfl_edge_{name}", text, labels=[label] if label else None)
        for value_of, value in values.items():
            family.add_metric([value_of] if label else [], value)
        return family
