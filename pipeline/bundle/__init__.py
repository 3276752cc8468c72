"""A folder that runs the graph on a machine without a network, and the import of its results."""
