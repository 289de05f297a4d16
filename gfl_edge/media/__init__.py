"""Frames in, annotated images out: image files, videos, cameras, streams, windows, and drawing on frames.

It may import ``ops`` and what a user imports (``detections``, ``errors``); ``annotate`` is given a detector.
"""
