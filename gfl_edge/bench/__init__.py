"""Measuring a model file on a device: ``gfl-edge bench``. docs/report.md describes what comes out."""
