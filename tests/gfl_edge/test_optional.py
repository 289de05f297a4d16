"""Optional packages: loaded when they are used, and without what reports their use."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import warnings

import pytest

# Prints what the process did that could reach a network: OpenVINO's telemetry forks, and the child opens the socket
WATCHED = """
import sys

done = []
NETWORK = ("socket.", "os.fork", "os.posix_spawn", "subprocess.Popen")
sys.addaudithook(lambda event, _: done.append(event) if event.startswith(NETWORK) else None)
from gfl_edge import optional

optional.load("openvino").Core()
print([name for name in sys.modules if name.partition(".")[0] == "openvino_telemetry"], done)
"""


@pytest.mark.parametrize("cached", [False, True], ids=["first start", "second start"])
def test_openvino_reports_nothing(tmp_path, cached):
    pytest.importorskip("openvino_telemetry")
    if cached:  # consent as OpenVINO's own tools leave it
        (tmp_path / "intel").mkdir()
        (tmp_path / "intel" / "openvino_telemetry").write_text("1")
    before = sorted(tmp_path.rglob("*"))
    environment = {**os.environ, "HOME": str(tmp_path)}
    words = [sys.executable, "-c", WATCHED]
    found = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert found.returncode == 0, found.stderr
    assert found.stdout.strip() == "[] []"
    assert sorted(tmp_path.rglob("*")) == before


def test_telemetry_can_be_imported_by_others_afterwards():
    telemetry = pytest.importorskip("openvino_telemetry")
    from gfl_edge import optional

    optional.load("openvino")
    assert sys.modules["openvino_telemetry"] is telemetry


def test_quiet_drops_what_is_printed_warned_of_and_logged(capsys, caplog, recwarn):
    from gfl_edge import optional

    logger = logging.getLogger("maker")
    with optional.quiet(logging.WARNING):
        print("printed")
        warnings.warn("warned of", stacklevel=1)
        logger.warning("logged")
        logger.error("serious")
    logger.warning("afterwards")
    assert not capsys.readouterr().out
    assert not recwarn.list
    assert [record.message for record in caplog.records] == ["serious", "afterwards"]
