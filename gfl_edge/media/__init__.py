"""Frames in, annotated images out: image files, videos, cameras, streams, windows, and drawing on frames.

It may import ``ops``, ``detections``, ``filters``, ``results`` and the small tools of ``gfl_edge``; a detector is
given to it.
"""
