"""These tests export the same few networks in many forms."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module", autouse=True)
def _one_trace(one_trace: None) -> None:
    """Each is traced once."""
