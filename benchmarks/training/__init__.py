"""What a training iteration costs, and what whole trainings on real data reach.

Imports gfl_edge, train, export and benchmarks.artifacts.
"""
