"""``python -m gfl_edge`` is ``gfl-edge``."""

import sys

from gfl_edge.cli.main import main

sys.exit(main())
