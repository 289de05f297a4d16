"""What exporting and building engines takes: seconds, bytes and memory.

Imports gfl_edge, train, export and benchmarks.models.
"""
