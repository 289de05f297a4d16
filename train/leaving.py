"""How a script ends that may be one of several processes."""

from __future__ import annotations

import os
import sys
from typing import NoReturn


def leave(status: int) -> NoReturn:
    """End the program; a script's last line in place of ``sys.exit``.

    Among several processes the interpreter is not finalised: DistributedDataParallel keeps its process group alive
    after it was destroyed (PyTorch 2.13), and a thread of gloo that lets go of its last tensor only then ends the
    process with "terminate called without an active exception".
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        sys.exit(status)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
