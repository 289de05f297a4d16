"""What one image costs from frame to detections, and the report of the published models.

Imports the packages of the checkout and the other rooms of benchmarks, whose models it times.
"""
