"""The version of graphexec."""

__version__ = "0.1.0"
