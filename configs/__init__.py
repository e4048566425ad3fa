"""YAML files with everything a user may turn; this file makes importlib.resources find them."""
