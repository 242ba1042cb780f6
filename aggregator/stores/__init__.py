"""Adapters of the event store."""
