"""Scenarios: a plan written as steps at given times, played through the whole application."""
