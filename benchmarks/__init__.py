"""Measurements of the project; every number in the README comes from a file under benchmarks/results/."""
