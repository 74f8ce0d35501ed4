"""What everything else may use: tensors, errors and how they are shown, files, caches."""
