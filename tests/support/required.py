"""What a test needs and a machine may lack: a reason to skip, or to fail where it is required."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def required(what: str) -> bool:
    """Whether ``GFL_EDGE_REQUIRE_<what>`` is set, as it is in CI: then a test must not skip for want of it."""
    return os.environ.get(f"GFL_EDGE_REQUIRE_{what}") == "1"


def skip_unless_required(reason: str) -> NoReturn:
    """Skip; fail where the test data and tools are required."""
    if required("DATA"):
        pytest.fail(f"GFL_EDGE_REQUIRE_DATA is set, but {reason}")
    pytest.skip(reason)
