"""Mutation testing: one-line changes of pipeline/, and the share that the fast tests notice."""
