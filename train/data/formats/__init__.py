"""Readers of annotation files: COCO, VOC, YOLO, and lists of class names.

May import the modules of train.data beside it and gfl_edge.
"""
