"""``python -m gfl_edge`` is ``gfl-edge``."""

import sys

from gfl_edge.cli import main

sys.exit(main())
