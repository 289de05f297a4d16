"""Measurements of the project: every number in the README comes from a file under benchmarks/results/.

May import gfl_edge, calib, train and export; nothing imports it except tests. Never installed.
"""
