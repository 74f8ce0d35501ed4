"""How `load` reads YAML: bytes → text → tree of located values → checked declarations."""
