"""The same networks in other people's run times, with the post-processing of their samples.

Imports gfl_edge, train, export and benchmarks.models; ncnn and pnnx, of the extra peers, when they are used.
"""
