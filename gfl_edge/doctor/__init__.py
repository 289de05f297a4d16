"""What this machine has and lacks for running and building detectors: ``gfl-edge doctor``.

It may import everything in ``gfl_edge`` except ``cli``, to try it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from gfl_edge.doctor import gpu, jetson, opencv, packages, python, trial
from gfl_edge.doctor.findings import Finding, Report, guarded


def examine() -> Report:
    """Look at everything. A probe that fails becomes a finding, so that this never raises.

    Each library is imported to see whether it loads, and what the commands do is done once, which takes some seconds.
    """
    board = guarded("Jetson", lambda: jetson.examine(jetson.read_board()))
    probes: tuple[tuple[str, Callable[[], list[Finding]]], ...] = (
        ("Python", python.examine),
        ("CPU", packages.examine_cpu),
        ("OpenCV", partial(opencv.examine, on_jetson=bool(board))),
        ("Trial", trial.examine),
        ("GPU", partial(gpu.examine, on_jetson=bool(board))),
        ("Tools", packages.examine_tools),
    )
    findings = [finding for section, probe in probes for finding in guarded(section, probe)]
    return Report((*findings, *board))
