"""train/train.py that waits before each step until a file allows so many: python gated_training.py GATE ARGUMENT ..."""

from __future__ import annotations

import sys
import time
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from train.leaving import leave
from train.loop import Trainer
from train.train import main


def wait_for(gate: Path) -> None:
    """Have the trainer take a step only while fewer are done than ``gate`` says."""
    original = Trainer._step

    def step(self, batches, count):
        while self.position.step >= int(gate.read_text()):
            time.sleep(0.02)
        return original(self, batches, count)

    Trainer._step = step


if __name__ == "__main__":
    wait_for(Path(sys.argv[1]))
    leave(main(sys.argv[2:]))
