"""The nouns: ops, graphs, programs and plans. Frozen data."""
