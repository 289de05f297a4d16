"""Runs the cases of a measurement in turns, so that what disturbs the machine disturbs all of them alike."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from gfl_edge.bench.device.counters import Recorder
from gfl_edge.bench.protocols import Timed, TimedRun
from gfl_edge.bench.timing import summarize, summarize_stages, warm_up
from gfl_edge.progress import progress_bar
from gfl_edge.report.schema import BOUNDARIES, SLOW_CLOCK, MachineLoad, Run, WarmUp, sm_clock_mhz

TURN_SECONDS = 1.0  # of one case before the next has its turn
MIN_TURN_RUNS = 3
NOISY_P95 = 1.25  # of the median, from which on a machine was not quiet
FEW_SAMPLES = 100  # below which the 99th percentile is one or two runs


@dataclass
class Case:
    """One model under one protocol and batch, and what was measured so far.

    Attributes:
        model: id of the model in the report.
        timed: the protocol.
        recorder: of the device's counters.
        min_warm_up_seconds: how long it has to run before.
        samples: runs that count.
        warm_up: what came before them.
    """

    model: str
    timed: Timed
    recorder: Recorder
    min_warm_up_seconds: float = 0.0
    samples: list[TimedRun] = field(default_factory=list)
    warm_up: WarmUp | None = None

    def prepare(self) -> None:
        """Run until the times are stable."""
        self.warm_up = warm_up(lambda: self.timed.step().latency_ms, min_seconds=self.min_warm_up_seconds)
        self.timed.rest()

    def take_turn(self) -> None:
        """Run for a while. The first do not count: they find the caches as the case before left them."""
        for _ in range(self.timed.in_flight):
            self.timed.step()
        with self.recorder.turn() as turn:
            start, halfway = time.perf_counter(), False
            while turn.images < MIN_TURN_RUNS * self.timed.batch or time.perf_counter() - start < TURN_SECONDS:
                self.samples.append(self.timed.step())
                turn.images += self.timed.batch
                if not halfway and time.perf_counter() - start > TURN_SECONDS / 2:
                    self.recorder.read(turn)
                    halfway = True
        self.timed.rest()

    def result(self) -> Run:
        """For the report."""
        assert self.warm_up is not None
        latencies_ms = [sample.latency_ms for sample in self.samples]
        measured = tuple(self.samples[0].stages_ms)
        stages = [sample.stages_ms for sample in self.samples]
        return Run(
            model=self.model,
            protocol=self.timed.name,
            boundaries=BOUNDARIES[self.timed.name],
            differences=tuple(self.timed.differences()),
            batch=self.timed.batch,
            latency=summarize(latencies_ms, self.timed.batch),
            stages=summarize_stages(stages, latencies_ms, self.timed.stages.notes(measured)),
            warm_up=self.warm_up,
            device=self.recorder.summary(),
        )


def run_cases(cases: Sequence[Case], seconds: float, seed: int = 0, progress: bool = True) -> list[Run]:
    """Warm up and measure every case for about ``seconds``; the order within a round is drawn anew each time."""
    rounds = max(1, round(seconds / TURN_SECONDS))
    generator = np.random.default_rng(seed)
    with progress_bar("warming up", len(cases), enabled=progress) as bar:
        for case in cases:
            case.prepare()
            bar.update()
    with progress_bar("measuring, turns", rounds * len(cases), enabled=progress) as bar:
        for _ in range(rounds):
            for index in generator.permutation(len(cases)):
                cases[index].take_turn()
                bar.update()
    return [case.result() for case in cases]


def warnings(machine: MachineLoad, runs: Sequence[Run]) -> list[str]:
    """What makes these numbers doubtful, in words for a person."""
    found = []
    load, cores = machine.load_average_1min, machine.cores
    if load is not None and load > 0.25 * cores:
        found.append(f"the machine was busy before it began: load average {load:.2f} on {cores} cores")
    if (machine.cpu_percent_of_others or 0) > 5:
        found.append(f"other processes took {machine.cpu_percent_of_others:.0f} % of the CPU meanwhile")
    if (machine.cpu_percent_stolen or 0) > 1:
        found.append(f"the host gave {machine.cpu_percent_stolen:.0f} % of the CPU to other virtual machines")
    if unstable := [run for run in runs if not run.warm_up.stable]:
        found.append(f"times never became stable in the warm-up of {_listed(unstable, runs)}")
    if disturbed := [run for run in runs if run.latency.p95_ms > NOISY_P95 * run.latency.p50_ms]:
        worst = max(run.latency.p95_ms / run.latency.p50_ms for run in disturbed)
        found.append(f"p95 is up to {worst:.2f} times p50, so something disturbed {_listed(disturbed, runs)}")
    if short := [run for run in runs if run.latency.samples < FEW_SAMPLES]:
        least, names = min(run.latency.samples for run in short), _listed(short, runs)
        found.append(f"p99 is little more than the longest, with {least} samples or a few more, of {names}")
    if throttled := [run for run in runs if run.device.throttled]:
        reasons = sorted({reason for run in throttled for reason in run.device.throttle_reasons})
        found.append(f"the device throttled ({', '.join(reasons)}) in {_listed(throttled, runs)}")
    return found + _clock_warnings(runs)


def _clock_warnings(runs: Sequence[Run]) -> list[str]:
    clocks = [sm_clock_mhz(run.device) or 0.0 for run in runs]
    highest = max(clocks, default=0.0)
    slow = [run for run, clock in zip(runs, clocks, strict=True) if 0 < clock < SLOW_CLOCK * highest]
    if not slow:
        return []
    least = min(clock for clock in clocks if clock)
    return [f"the GPU's clock was as low as {least:.0f} MHz, of {highest:.0f} in other runs, in {_listed(slow, runs)}"]


def _listed(found: Sequence[Run], runs: Sequence[Run]) -> str:
    if len(found) == len(runs):
        return "every run"
    names = [f"{run.model} ({run.protocol}, batch {run.batch})" for run in found[:4]]
    return ", ".join(names) + (f" and {len(found) - 4} more" if len(found) > 4 else "")
