"""Counters of the device that a model runs on, and the load of the machine: clocks, temperature, power, memory.

It may import the backends, to know which device they use; nothing else of ``bench`` is imported here.
"""
