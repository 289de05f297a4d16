"""Random changes to training images with their boxes: flips, crops, moves, colors, mosaics and pasted objects.

May import gfl_edge.annotations.records and gfl_edge.
"""
