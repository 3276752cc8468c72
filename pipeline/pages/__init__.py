"""Generates the tables of README.md and docs/ from stored results: ``make tables``.

A page marks a table's place with a line ``<!-- table: NAME -->`` and a line ``<!-- end -->``. NAME
is a key of TABLES in stored.py (docs/data/ and reports/results.csv) or gpu.py (GPU measurements).
"""
