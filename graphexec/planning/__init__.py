"""TypedGraph to Plan."""
