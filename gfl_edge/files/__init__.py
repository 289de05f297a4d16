"""Files that are whole or not there at all: writing them, making sure before that they can be, and what is there.

Imports the standard library and gfl_edge.errors only.
"""

from gfl_edge.files.found import CACHE_VARIABLE, cache_folder, is_file, read_regular, sha256, size_bytes
from gfl_edge.files.output import cannot_write, check_output, whole_file, whole_files, write_atomically, write_together
from gfl_edge.files.partial import free_bytes

__all__ = [
    "CACHE_VARIABLE",
    "cache_folder",
    "cannot_write",
    "check_output",
    "free_bytes",
    "is_file",
    "read_regular",
    "sha256",
    "size_bytes",
    "whole_file",
    "whole_files",
    "write_atomically",
    "write_together",
]
