"""The version of gfl_edge, in one place."""

__version__ = "0.1.0"
