"""From where models come to a Graph."""
