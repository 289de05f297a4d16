"""Identities over time: which object of a frame is which of the frames before.

It may import ``detections``, ``ops.boxes`` and the small tools of ``gfl_edge``.
"""
