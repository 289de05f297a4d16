"""Measures model files on this machine and makes a :class:`gfl_edge.report.schema.Report` of it.

It may import all of ``gfl_edge`` that runs a model, and of ``report`` only the types.
"""
