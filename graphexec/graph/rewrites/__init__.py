"""Rewrites of typed graphs, one a module; graphexec.graph.rewrite lists and applies them."""
