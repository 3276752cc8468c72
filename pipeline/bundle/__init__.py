"""A folder that runs the graph on a machine without a network, and the way back home."""
