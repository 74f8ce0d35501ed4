"""From a Graph to a typed graph that is cheaper to compute."""
