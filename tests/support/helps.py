"""What many scripts say of themselves, asked of one process: hundreds of starts of Python would cost minutes."""

from __future__ import annotations

import json
from collections.abc import Sequence

# The first line of each help as a list in JSON; ends at the first script that has none
_ASK = """
import contextlib, io, json, runpy, sys
told = []
for words in json.loads({asked!r}):
    sys.argv, said = [*words, "--help"], io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            runpy.run_path(words[0], run_name="__main__")
    except SystemExit as left:
        assert left.code == 0, (words, left.code)
    else:
        raise AssertionError(f"{{words}} did not end with its help")
    told.append(said.getvalue().partition("\\n")[0])
print(json.dumps(told))
"""


def ask_help(commands: Sequence[Sequence[str]], before: str = "") -> list[str]:
    """What follows ``python``, to print the first line of every script's ``--help``.

    Args:
        commands: each the path of a script and its first arguments.
        before: Python code to run first.
    """
    return ["-c", before + _ASK.format(asked=json.dumps(commands))]
