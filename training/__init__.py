"""Training, inference and evaluation on the tables and grids that `pipeline` writes."""
