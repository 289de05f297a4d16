"""What gfl_edge depends on and under which licenses: ``docs/licenses.md``, and a software bill of materials (SBOM).

    python docs/licenses.py             writes docs/licenses.md
    python docs/licenses.py --sbom F    writes the installed packages to F, as CycloneDX 1.5

Licenses are what the installed packages declare in their own metadata.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if __package__ in (None, ""):  # run as a script: take the checkout's gfl_edge
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from gfl_edge._version import __version__
from gfl_edge.files import write_atomically

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CHECKOUT = Path(__file__).resolve().parent.parent
PAGE = CHECKOUT / "docs" / "licenses.md"
NONE = "declares none"
# Of packages for other machines, as their projects say; they are not installed where this page is made
ELSEWHERE = {
    "ncnn": "BSD-3-Clause",
    "nvidia-pytriton": "Apache-2.0",
    "nvidia-cuda-nvrtc-cu12": "NVIDIA Proprietary Software",
    "opencv-python-headless": "Apache-2.0",
    "pnnx": "BSD-3-Clause",
    "portalocker": "BSD-3-Clause",
    "pycuda": "MIT",
    "tensorrt": "Other/Proprietary License",
    "tensorrt-cu12": "Other/Proprietary License",
    "tensorrt-rtx-cu12": "Other/Proprietary License",
    "tomli": "MIT",
    "tritonclient": "BSD-3-Clause",
}
PROPRIETARY = re.compile(r"propriet|nvidia.*(software|license)|LicenseRef-NVIDIA", re.IGNORECASE)
INTRODUCTION = """\
# Licenses of what gfl_edge uses

gfl_edge itself is under Apache-2.0; what it was learned from is in
[THIRD_PARTY_NOTICES.md](../THIRD_PARTY_NOTICES.md). What pip installs beside it is listed here with the license that
each package declares in its own metadata, by `python docs/licenses.py`. That is not legal advice: read them before you
ship a device.

Proprietary, under NVIDIA's own terms, which limit where they may be used and copied:
{proprietary}.
TensorRT and CUDA of JetPack come under the terms of JetPack. The `torch` of PyPI brings NVIDIA's CUDA
libraries on Linux, which are proprietary, too; the one for CPUs does not.

Packages that declare no license in their metadata: {silent}.

`make sbom` writes all that is installed to `dist/sbom.json`, in the format CycloneDX.

## By extra

| extra | package | license |
|---|---|---|
"""


def requirements() -> Iterator[tuple[str, Requirement]]:
    """Each extra, "" for the core, with each package that it names."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    for extra, texts in {"": project["dependencies"], **project["optional-dependencies"]}.items():
        for text in texts:
            requirement = Requirement(text)
            if requirement.name != project["name"]:
                yield extra, requirement


def license_of(name: str) -> str:
    """What a package declares, in a few words."""
    try:
        found = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return ELSEWHERE.get(canonicalize_name(name), "not installed where this was written")
    if expression := found.get("License-Expression"):
        return str(expression)
    kinds = [text.rpartition(" :: ")[2] for text in found.get_all("Classifier", []) if text.startswith("License :: ")]
    if kinds == ["BSD License"] and canonicalize_name(name) in ELSEWHERE:  # which says which one
        return ELSEWHERE[canonicalize_name(name)]
    if kinds and kinds != ["OSI Approved"]:
        return ", ".join(sorted(set(kinds)))
    lines = (found.get("License") or "").strip().splitlines()
    return lines[0].strip()[:60] if lines and lines[0].strip() not in ("", "UNKNOWN") else NONE


def indirect(direct: dict[str, set[str]]) -> set[str]:
    """What the direct packages need in turn, with the extras that are asked of them, of those that are installed."""
    found, left = set(direct), list(direct.items())
    while left:
        package, extras = left.pop()
        try:
            texts = metadata.requires(package) or []
        except metadata.PackageNotFoundError:
            continue
        for requirement in map(Requirement, texts):
            name, marker = canonicalize_name(requirement.name), requirement.marker
            needed = marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras))
            if needed and name not in found:
                found.add(name)
                left.append((name, requirement.extras))
    return found - direct.keys()


def page() -> str:
    """The content of docs/licenses.md."""
    rows: dict[tuple[str, str], str] = {}
    for extra, requirement in requirements():
        rows[extra, canonicalize_name(requirement.name)] = license_of(requirement.name)
    direct: dict[str, set[str]] = {name: set() for _, name in rows}
    for _, requirement in requirements():
        direct[canonicalize_name(requirement.name)] |= requirement.extras
    further = {name: license_of(name) for name in sorted(indirect(direct)) if _installed(name)}
    all_of_them = {**{name: text for (_, name), text in rows.items()}, **further}
    proprietary = sorted(name for name, text in all_of_them.items() if PROPRIETARY.search(text))
    silent = sorted(name for name, text in all_of_them.items() if text == NONE)
    text = INTRODUCTION.format(proprietary=", ".join(proprietary), silent=", ".join(silent) or "none")
    text += "".join(f"| {extra or 'always'} | {name} | {license} |\n" for (extra, name), license in rows.items())
    text += "\n## What these need in turn\n\n| package | license |\n|---|---|\n"
    return text + "".join(f"| {name} | {license} |\n" for name, license in further.items())


def sbom() -> dict[str, object]:
    """CycloneDX 1.5 of the packages that are installed here."""
    components = []
    names = {canonicalize_name(found.metadata["Name"]): found.version for found in metadata.distributions()}
    for name, version in sorted(names.items()):
        licenses = [{"license": {"name": license_of(name)}}]
        purl = f"pkg:pypi/{name}@{version}"
        components.append({"type": "library", "name": name, "version": version, "purl": purl, "licenses": licenses})
    product = {
        "type": "library",
        "name": "gfl-edge",
        "version": __version__,
        "purl": f"pkg:pypi/gfl-edge@{__version__}",
    }
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": product},
        "components": [one for one in components if one["name"] != "gfl-edge"],
    }


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def main(argv: list[str] | None = None) -> int:
    """Write one of the two."""
    parser = argparse.ArgumentParser(description="Licenses of what gfl_edge depends on.")
    parser.add_argument("--sbom", type=Path, metavar="FILE", help="write the installed packages, as CycloneDX")
    args = parser.parse_args(argv)
    if args.sbom is not None:
        write_atomically(args.sbom, (json.dumps(sbom(), indent=1) + "\n").encode())
    else:
        write_atomically(PAGE, page().encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
