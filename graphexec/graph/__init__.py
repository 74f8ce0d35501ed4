"""Graph to TypedGraph (infer), and TypedGraph to a cheaper equivalent one (rewrite)."""
