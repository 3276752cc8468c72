"""Trials that disturb a run and compare the next one with an undisturbed run (docs/trust.md)."""
