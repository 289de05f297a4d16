"""What goes wrong around a detector, done to it on purpose: kills, full disks, bad cameras, many at once.

May import whatever the checkout has, as all benchmarks may.
"""
