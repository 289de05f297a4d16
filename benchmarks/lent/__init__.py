"""What a GPU that is lent for half an hour is asked, the most valuable first; ``benchmarks/gpu.py`` runs it.

May import benchmarks.kernels and gfl_edge. Needs NumPy, cuda-python, and NVRTC or nvcc; a stage that needs more says
what is missing.
"""
