"""Measure a graph's commands and plans on a device: docs/tuning.md."""
