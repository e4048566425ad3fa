"""Grounding models of others, run in their own Python environment as a child process."""
