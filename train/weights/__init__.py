"""Checkpoints, also other people's: found by name, read without executing anything, every key accounted for.

May import train.models, train.settings and gfl_edge.
"""
