"""Making INT8 models from float ones, by measurement; :func:`calib.run.calibrate` is the whole of it.

May import gfl_edge. A package of the checkout; never installed.
"""
