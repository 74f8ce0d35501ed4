"""Files to a Graph: YAML, weights, and the schema for editors."""
