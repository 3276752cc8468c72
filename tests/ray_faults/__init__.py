"""Faults of a Ray cluster while it runs the graph: drawn by seed, done for real, and checked."""
