"""The pages of reliability and security say what was measured and what is there."""

from __future__ import annotations

import json
import re

from docs import reliability
from tests.fuzz.registry import all_readers

CHECKOUT = reliability.CHECKOUT


def test_the_page_is_what_the_results_say():
    assert reliability.PAGE.read_text() == reliability.page(), "write it with: python docs/reliability.py"


def test_no_reader_failed_and_each_one_read_something():
    path = reliability.RESULTS / "fuzz.json"
    if not path.exists():
        assert "It was not measured." in reliability.PAGE.read_text()
        return
    rows = json.loads(path.read_text())["rows"]
    assert all(row["failed"] == 0 < row["read"] for row in rows)
    assert {row["reader"] for row in rows} <= all_readers().keys(), "measure again with: make fuzz"


def test_both_pages_are_linked_and_name_files_that_exist():
    readme = (CHECKOUT / "README.md").read_text()
    for name in ("docs/reliability.md", "docs/licenses.md", "SECURITY.md"):
        assert f"({name})" in readme
        for path in re.findall(r"`((?:gfl_edge|tests|train)/[\w/.]+)`", (CHECKOUT / name).read_text()):
            assert (CHECKOUT / path).exists(), path
