"""The camera: sources read, detected in, drawn and written at the same time; :func:`run_camera` is its one door.

It may import the detector and ``media``; of the rest of ``gfl_edge`` only the command line imports it.
"""

from gfl_edge.camera.run import run_camera as run_camera  # no __all__, with which the API reference has no submodules
