"""Blocks by slot; the registry lists them."""
