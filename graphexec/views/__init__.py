"""Pure functions from a plan or a graph to text, pictures and pages."""
