"""The table of DVC's experiments, and the MLflow UI at its saved views."""
