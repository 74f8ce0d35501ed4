"""From a typed graph to a Plan."""
