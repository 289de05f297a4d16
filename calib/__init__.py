"""Making INT8 models from float ones, by measurement."""
