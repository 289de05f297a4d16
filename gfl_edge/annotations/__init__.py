"""Annotations of images: what they are read into, the checks of them, COCO files and lists of class names.

It may import ``media``, ``ops`` and the small tools of ``gfl_edge``; NumPy only.
"""
