"""How many small changes of the code its own tests notice.

Imports gfl_edge and benchmarks; libcst and mutmut, of the extra mutants.
"""
