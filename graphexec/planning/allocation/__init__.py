"""Memory for tensors: lifetimes, conflicts, lower bounds of the arena, and offsets."""
