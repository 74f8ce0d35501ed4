"""Plan files and arrays."""
