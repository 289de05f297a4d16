"""What a reader may take for one file, and how often it is tried."""

from __future__ import annotations

EXECUTIONS = 250  # of every reader in `make test`
SLOW_EXECUTIONS = 4_000  # in `make slow`; `make fuzz` tries 20,000, of which docs/reliability.md has the counts
SEED = 0

MAX_SECONDS = 5  # of computing
STUCK_SECONDS = 60  # without an execution that ends, on a machine that others use, too
MAX_GROWTH_BYTES = 1 << 30  # of the address space, beyond what the reader had after its first file
MAX_MESSAGE_CHARS = 2_000  # of an error; files must not choose how much is written on a terminal
MAX_FAILURES = 10  # after which a run ends
