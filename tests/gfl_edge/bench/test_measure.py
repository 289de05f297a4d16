"""Turns, stages and warnings of a measurement, from scripted protocols and backends."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from gfl_edge.bench import measure
from gfl_edge.bench.device.counters import Reading
from gfl_edge.bench.measure import Case, run_cases, warnings
from gfl_edge.bench.protocols import StageReader, TimedRun
from gfl_edge.bench.timing import summarize, summarize_stages
from gfl_edge.report.schema import DeviceCounters, MachineLoad, Range, Run, StageRow, WarmUp


class Scripted:
    """A protocol of scripted times, that notes when it ran."""

    name, batch, in_flight = "stream", 1, 1

    def __init__(self, name, log):
        self._name, self._log, self.stages = name, log, StageReader(Fixed())

    def step(self):
        self._log.append(self._name)
        return TimedRun(5.0, {"network": 4.0, "nms": 0.5})

    def rest(self):
        pass

    def differences(self):
        return []


class Nothing:
    name, missing = "none", {"throttling": "nothing"}

    def read(self):
        return Reading()


class Fixed:
    """A detector that only has notes on stages."""

    class spec:  # noqa: N801
        has_nms = False

    class backend:  # noqa: N801
        name = "openvino"

        class spec:  # noqa: N801
            has_nms = False

        @staticmethod
        def describe():
            return {"device": "CPU"}


def test_models_take_turns_and_the_first_run_of_a_turn_does_not_count(monkeypatch):
    log = []
    monkeypatch.setattr(measure, "TURN_SECONDS", 1e-9)
    cases = [Case(name, Scripted(name, log), measure.Recorder(Nothing())) for name in "abc"]
    runs = run_cases(cases, 4e-9, progress=False)
    warm_up, turns = log[:45], log[45:]
    assert [warm_up.count(name) for name in "abc"] == [15, 15, 15]
    per_turn = 1 + measure.MIN_TURN_RUNS
    orders = ["".join(turns[start : start + 3 * per_turn : per_turn]) for start in range(0, len(turns), 3 * per_turn)]
    assert len(orders) == 4
    assert all(sorted(order) == ["a", "b", "c"] for order in orders)
    assert len(set(orders)) > 1
    for run in runs:
        assert run.latency.samples == 4 * measure.MIN_TURN_RUNS
        assert run.stage("other").mean_ms == pytest.approx(0.5)


class Gpu:
    """Which stages are distinguished, by the kind of backend."""

    def __init__(self, nms, stage_ms=None):
        class Backend:
            name, spec, max_batch, nms_place = "rtx", Fixed.spec, 1, nms

            def run(self, images): ...
            def run_frames(self, frames, input_hw): ...
            def close(self): ...
            def time_stages(self): ...
            def describe(self):
                return {"device": "GPU"}

        self.backend = Backend()
        if stage_ms is not None:
            self.backend.stage_ms = stage_ms
        self.spec = Fixed.spec


LAST_MS = {"preprocess": 0.1, "network": 9.0, "postprocess": 1.0}


def test_stages_of_a_gpu():
    whole = StageReader(Gpu("kernels"))
    assert whole.split(LAST_MS) == {"network": 9.0}
    said = whole.notes(("network", "draw"))
    assert said["nms"] == said["upload"] == said["resize"] == "part of network: the backend does not separate it"
    assert StageReader(Gpu("host")).split(LAST_MS) == {"network": 9.0, "nms": 1.0}
    parts = {"upload": 1.0, "resize": 0.5, "network": 5.0, "nms": 1.5, "download": 0.2}
    assert StageReader(Gpu("kernels", parts)).split(LAST_MS) == parts
    assert StageReader(Gpu("graph")).notes(("network",))["nms"] == "part of network: NMS is in the graph"


def test_rows_of_stages():
    samples = [{"read": 3.0, "network": 4.0}, {"read": 5.0, "network": 6.0}]
    rows = {row.name: row for row in summarize_stages(samples, [5.0, 8.0], {"upload": "why"})}
    assert (rows["read"].mean_ms, rows["network"].p50_ms) == (4, 5)
    assert rows["other"].mean_ms == pytest.approx(1.5)  # reading is no part of the latency
    assert rows["upload"] == StageRow("upload", None, None, None, "why")


QUIET = MachineLoad(2, 0.1, 1.0, 0.0, None)
QUIET_RUN = Run(
    model="m",
    protocol="stream",
    boundaries="",
    differences=(),
    batch=1,
    latency=replace(summarize([10.0] * 500), p95_ms=11.0),
    stages=(),
    warm_up=WarmUp(15, 0.1, True, 0.0, 0.05),
    device=DeviceCounters("none", (), (), (), None, None, None, (), ()),
)


def quiet_run(**latency):
    return replace(QUIET_RUN, latency=replace(QUIET_RUN.latency, **latency))


def with_clock(mhz, name="sm"):
    return replace(QUIET_RUN, device=replace(QUIET_RUN.device, clocks_mhz=(Range(name, mhz, mhz, mhz),)))


def test_runs_at_a_lower_clock_of_the_gpu_are_named():
    runs = [with_clock(1800.0), replace(with_clock(1500.0), batch=8), replace(with_clock(1700.0), batch=2)]
    (found,) = warnings(QUIET, runs)
    assert found == f"the GPU's clock was as low as 1500 MHz, of 1800 in other runs, in {QUIET_RUN.model} (" + (
        f"{QUIET_RUN.protocol}, batch 8)"
    )
    assert warnings(QUIET, [with_clock(1000.0, "cpu0"), with_clock(4000.0, "cpu0")]) == []


def test_a_quiet_machine_has_no_warnings():
    assert warnings(QUIET, [QUIET_RUN]) == []
    assert warnings(MachineLoad(2, None, None, None, None), []) == []


@pytest.mark.parametrize(
    ("machine", "run", "message"),
    [
        ({"load_average_1min": 1.5}, QUIET_RUN, "busy before it began: load average 1.50 on 2 cores"),
        ({"cpu_percent_of_others": 30.0}, QUIET_RUN, "other processes took 30 %"),
        ({"cpu_percent_stolen": 4.0}, QUIET_RUN, "other virtual machines"),
        ({}, quiet_run(p95_ms=13.0), "p95 is up to 1.30 times p50, so something disturbed every run"),
        ({}, quiet_run(samples=40), "with 40 samples"),
        ({}, replace(QUIET_RUN, warm_up=replace(QUIET_RUN.warm_up, stable=False)), "never became stable"),
        (
            {},
            replace(QUIET_RUN, device=replace(QUIET_RUN.device, throttled=True, throttle_reasons=("hot",))),
            r"throttled \(hot\)",
        ),
    ],
)
def test_what_is_warned_of(machine, run, message):
    (found,) = warnings(replace(QUIET, **machine), [run])
    assert re.search(message, found)
