"""Measuring what a graph's commands and plans take on a device: docs/tuning.md."""
