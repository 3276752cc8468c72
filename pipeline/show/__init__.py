"""Show: the table of DVC's experiments, and the way to the saved views of the MLflow UI."""
