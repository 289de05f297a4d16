"""Detections of millions of images as Parquet, on this machine or on a cluster of Ray.

``run.py`` is the way in; its docstring draws the steps. It may import ``detector``, ``filters``, ``media.images``,
``results.journal`` and the small tools of ``gfl_edge``; pyarrow, fsspec and Ray are loaded when they are used.
"""
