"""What a probe found, and what all findings together say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from gfl_edge.console import aligned

Status = Literal["ok", "missing", "problem"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        section: heading that it belongs under.
        name: of what was looked at.
        status: "ok", "missing" (not there, which need not matter) or "problem" (there and unusable).
        detail: version, or what is wrong.
        remedy: command or step that fixes it; "" where it is ok.
        runs: whether engines run on it here.
    """

    section: str
    name: str
    status: Status
    detail: str
    remedy: str = ""
    runs: bool = False


@dataclass(frozen=True)
class Report:
    """All findings, in order."""

    findings: tuple[Finding, ...]

    def is_ok(self, name: str) -> bool:
        """Whether something of that name was found and is usable."""
        return any(finding.name == name and finding.status == "ok" for finding in self.findings)

    @property
    def ways(self) -> tuple[str, ...]:
        """The ways in which a detector can run here; none where no image can be read."""
        if not self.is_ok("image"):
            return ()
        on_cpu = [f"ONNX files by {name}" for name in ("openvino", "onnxruntime") if self.is_ok(f"detection by {name}")]
        on_gpu = [f"engines by {finding.name}" for finding in self.findings if finding.runs]
        return (*on_cpu, *on_gpu)

    @property
    def verdict(self) -> str:
        """What runs here, in a sentence."""
        if self.ways:
            return f"detectors run here: {', '.join(self.ways)}"
        return (
            "no detector runs here yet: fix what is named above; pip install 'gfl-edge[cpu,opencv]' is the shortest "
            "way where OpenCV is not part of the system"
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {
            "runs": bool(self.ways),
            "ways": list(self.ways),
            "findings": [asdict(finding) for finding in self.findings],
        }

    def __str__(self) -> str:
        lines: list[str] = []
        for section in dict.fromkeys(finding.section for finding in self.findings):
            own = [finding for finding in self.findings if finding.section == section]
            rows = aligned([(f"  {finding.status}", finding.name, finding.detail) for finding in own])
            lines.append(section)
            for finding, row in zip(own, rows.splitlines(), strict=True):
                lines.extend([row, f"           -> {finding.remedy}"] if finding.remedy else [row])
        return "\n".join([*lines, "", self.verdict])


def guarded(section: str, probe: Callable[[], list[Finding]]) -> list[Finding]:
    """What ``probe`` finds, or the finding that it failed."""
    try:
        return probe()
    except Exception as error:  # a broken library can fail in any way, and the others are still to be looked at
        return [
            Finding(section, "probe", "problem", f"{type(error).__name__}: {error}", "reinstall what the message names")
        ]
