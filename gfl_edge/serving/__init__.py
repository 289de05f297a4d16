"""Models for other people's servers: what NVIDIA's DeepStream and Triton read, and what clients of Triton need.

Imports gfl_edge.ops, gfl_edge.files, gfl_edge.filters, gfl_edge.engine and the spec.
"""
