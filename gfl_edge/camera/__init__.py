"""The camera: sources read, detected in, drawn and written at the same time; :func:`run_camera` is all of it."""

from gfl_edge.camera.loop import run_camera as run_camera  # no __all__, with which the API reference has no submodules
