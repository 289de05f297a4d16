"""Which detections count: by class, score, place, size and uncertainty; the same in Python and in the commands.

It may import ``detections``, ``spec``, ``annotations.class_names`` and the small tools of ``gfl_edge``.
"""

# no __all__, with which the API reference has no submodules
from gfl_edge.filters.detection_filter import DetectionFilter as DetectionFilter
from gfl_edge.filters.regions import Region as Region
