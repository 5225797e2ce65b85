"""Connectors to outside systems, one module each; none yet."""
