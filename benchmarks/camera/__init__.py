"""The running camera: overlap of its stages, latency of a live source, memory over many frames.

Imports gfl_edge, train, export and benchmarks.models.
"""
