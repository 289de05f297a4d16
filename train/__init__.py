"""Networks, checkpoint import and training in PyTorch. A package of the checkout; never installed.

May import calib and gfl_edge.
"""
