"""Training data: checks, batches and what loads them, from annotations to tensors.

May import train.settings, train.structures and gfl_edge.
"""
