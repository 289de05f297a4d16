"""Detector networks in PyTorch, written for readers and for export.

May import train.structures, train.settings and gfl_edge.
"""
