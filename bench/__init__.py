"""Benchmarks: each prints a table; nothing here is a test."""
