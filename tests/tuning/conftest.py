"""Makes the helpers beside these tests importable."""
