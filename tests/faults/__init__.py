"""Faults that a deployment survives."""
