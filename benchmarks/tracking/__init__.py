"""How well objects are followed, on a clip whose identities are known.

May import everything below it; nothing imports it except ``benchmarks/run.py`` and tests.
"""
