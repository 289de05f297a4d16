"""Random changes to training images with their boxes: flips, crops, moves, colors, mosaics and pasted objects.

May import train.data.annotations and gfl_edge.
"""
