"""Shared by all folders: tensors, errors and diagnostics, expressions, files, caches."""
