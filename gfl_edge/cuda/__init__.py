"""The few CUDA calls that running an engine needs, behind one small interface."""
