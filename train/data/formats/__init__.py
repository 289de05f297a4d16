"""Readers of annotation files that only training takes: VOC and YOLO.

May import train.data.verified and gfl_edge.
"""
