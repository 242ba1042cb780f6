"""Meters: from the event log to exact answers."""
