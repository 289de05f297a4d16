"""The CUDA kernels of plugins/, built for a GPU or as an emulation: their work, registers and times.

Imports gfl_edge only, and PyTorch and torchvision where it compares times with theirs.
"""
