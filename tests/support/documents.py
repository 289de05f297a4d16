"""The command and Python blocks of the project's documents, and which of them a test cannot run as they are."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
DOCUMENTS = (
    *(CHECKOUT / "README.md", CHECKOUT / "CONTRIBUTING.md"),
    *sorted((CHECKOUT / "docs").glob("*.md")),
)
COMMANDS, PYTHON, OTHER = ("", "sh", "bash"), ("python",), ("text", "toml", "json")  # what follows the backticks

# Commands that are not run, only parsed: a pattern of the command, and why
PARSED_ONLY = {
    r"make (test|slow|mutants|check|floors|trial|docs)\b": "runs these tests, or takes longer than all of them",
    r"(python\S*|\S+/python) -m (venv|pip) ": "changes what is installed",
    r"pip (un)?install ": "changes what is installed",
    r"sudo ": "changes the system",
    r"curl ": "needs a page that is served",
    r"git clone ": "needs the network",
    r"gfl-edge camera .*--source (\d|nvargus|rtsp|http)": "needs a camera",
    r"gfl-edge adopt ": "needs somebody else's file",
    r"gfl-edge batch .*--address": "needs a cluster of Ray",
    r"\S*ray start ": "starts a server that stays",
    r"RAY_USAGE_STATS_ENABLED=0 ray start ": "starts a server that stays",
    r"gfl-edge camera\b(?!.*--source)": "needs a camera",
    r"gfl-edge \w+ .*\.engine\b": "needs a GPU",
    r"gfl-edge bench .*--against": "fails as it should where the machine is busier than before",
    r"(export/\w+\.py|gfl-edge build) .*--flavor tensorrt": "needs a GPU",
    r"export/\w+\.py .*--weights (?!\S+\.(ckpt|pth|pt)\b)(?!nanodet)": "needs the network",
    r"export/\w+\.py .*--unchecked": "needs the network",
    r"torchrun ": "needs several GPUs",
    r"/opt/ros/|examples/ros2_node\.py": "needs ROS 2",
    r"(sbatch|kubectl|docker) ": "needs a cluster",
    r"gfl-edge eval .*--store-sigma-scale": "needs more annotated images than are taken for a test",
}
# What is written otherwise before it is run: text, what stands for it, and why
REPLACED = {
    "bccd_nanodet_m.toml": ("bccd_nanodet_m.toml --set train.epochs=1 train.first_images=32", "takes minutes"),
    "configs/coco.toml": (
        "configs/coco.toml --set train.epochs=1 train.first_images=8 train.batch=8",
        "takes minutes on a GPU, hours on a CPU",
    ),
    "--images images -o artifacts/coco-448-int8": (
        "--images images --num-images 16 --probe-images 1 -o artifacts/coco-448-int8",
        "takes minutes",
    ),
    "--annotations cells.json": ("--annotations cells.json --limit 40", "takes minutes"),
    "source=0": ('source="video.mp4"', "needs a camera"),
}
SLOW = (
    "gfl-edge bench --model artifacts",
    "make demo",
    "make wheel",
    "calibrate.py",
    "--int8",
    "train/train.py",
    "--weights gfl",
    # fast tests do the same in tests/export
    "export/to_trt.py --weights nanodet_m.ckpt",
    'EngineRequest(Path("nanodet_m.ckpt")',
    "examples/zone_count.py",  # fast tests run it with a detector that needs no model
    "--format coco,csv --score",
    "nanodet-m-sigma",
)


@dataclass(frozen=True)
class Block:
    """A fenced block of a document."""

    document: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"

    @property
    def slow(self) -> bool:
        """Whether it takes long."""
        return any(word in self.text for word in SLOW)

    @property
    def as_run(self) -> str:
        """The text with what :data:`REPLACED` says."""
        text = self.text
        for words, (instead, _) in REPLACED.items():
            text = text.replace(words, instead)
        return text

    @property
    def commands(self) -> list[str]:
        """The commands, one each, without prompts and comments; those that continue on the next line are joined."""
        lines = self.text.replace("\\\n", " ").splitlines()
        words = (re.sub(r"^\$ ", "", line.strip()) for line in lines)
        return [line for line in words if line and not line.startswith("#")]


def blocks(*languages: str) -> list[Block]:
    """All blocks of all documents in one of the languages."""
    return [block for path in DOCUMENTS for block in read(path) if block.language in languages]


def read(path: Path) -> list[Block]:
    """The fenced blocks of one document."""
    found, start, language, lines = [], 0, None, []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if not line.startswith("```"):
            lines.append(line)
        elif language is None:
            start, language, lines = number, line.removeprefix("```").strip(), []
        else:
            found.append(Block(path.name, start, language, "\n".join(lines)))
            language = None
    assert language is None, f"{path.name}: the block of line {start} has no end"
    return found


def why_not(command: str) -> str | None:
    """Why a command is only parsed, or None if it is run."""
    return next((reason for pattern, reason in PARSED_ONLY.items() if re.search(pattern, command)), None)
