"""What coverage.py counts by file becomes shares by package."""

from __future__ import annotations

from benchmarks.coverage.coverage import rows


def of(lines, covered, branches, taken):
    counts = {"num_statements": lines, "covered_lines": covered, "num_branches": branches, "covered_branches": taken}
    return {"summary": counts}


def test_shares_are_of_packages_and_of_all():
    files = {"calib/a.py": of(10, 9, 4, 1), "calib/b.py": of(10, 10, 0, 0), "gfl_edge/ops/c.py": of(80, 41, 6, 6)}
    found = {row["package"]: (row["lines_percent"], row["branches_percent"]) for row in rows(files)}
    assert found == {"calib": (95.0, 25.0), "gfl_edge/ops": (51.2, 100.0), "all": (60.0, 70.0)}


def test_no_branches_are_no_share_of_them():
    assert rows({"calib/a.py": of(3, 3, 0, 0)})[0]["branches_percent"] is None
