"""The tables of README.md and docs/, generated from stored results."""
