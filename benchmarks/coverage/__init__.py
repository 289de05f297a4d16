"""Which lines and branches the tests run.

Imports gfl_edge and benchmarks; runs pytest with pytest-cov, of the extra dev.
"""
