"""Pure functions from a plan, or a graph, to something people look at."""
