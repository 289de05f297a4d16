"""Files that are whole or not there at all: writing them, making sure before that they can be, and what is there.

Imports the standard library and gfl_edge.errors only.
"""

# no __all__, with which the API reference has no submodules
from gfl_edge.files.found import CACHE_VARIABLE as CACHE_VARIABLE
from gfl_edge.files.found import cache_folder as cache_folder
from gfl_edge.files.found import is_file as is_file
from gfl_edge.files.found import read_regular as read_regular
from gfl_edge.files.found import sha256 as sha256
from gfl_edge.files.found import size_bytes as size_bytes
from gfl_edge.files.output import cannot_write as cannot_write
from gfl_edge.files.output import check_output as check_output
from gfl_edge.files.output import whole_file as whole_file
from gfl_edge.files.output import whole_files as whole_files
from gfl_edge.files.output import write_atomically as write_atomically
from gfl_edge.files.output import write_together as write_together
from gfl_edge.files.partial import free_bytes as free_bytes
