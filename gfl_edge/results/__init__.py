"""What was found in image files, written as COCO JSON, YOLO labels, CSV and JSON lines, and the journal of such a run.

It may import ``detections``, ``filters``, ``evaluation.ap``, ``media.lines`` and the small tools of ``gfl_edge``.
"""
