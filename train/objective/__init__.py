"""What a network is trained for: which cells learn which object, and by which losses.

May import train.models, train.structures and gfl_edge.
"""
