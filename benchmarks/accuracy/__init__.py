"""AP of models on COCO images by precision, place of NMS and INT8, and what computing it costs.

Imports the packages of the checkout, benchmarks.models and, for INT8, benchmarks.artifacts and benchmarks.training.
"""
