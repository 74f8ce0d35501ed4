"""Rewrites of typed graphs, one a module; graphexec.stages.rewrite lists and applies them."""
