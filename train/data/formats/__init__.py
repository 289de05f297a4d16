"""Readers of annotation files that only training takes: VOC and YOLO.

May import gfl_edge.
"""
