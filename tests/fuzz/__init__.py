"""Fuzz campaigns with a fixed seed: settings of all kinds, and damaged files for every reader."""
