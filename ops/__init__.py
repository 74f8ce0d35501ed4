"""The ops, a folder each, and the kit that they are made with. Installed as graphexec.ops."""
