"""Payments that move subjects between plans."""
