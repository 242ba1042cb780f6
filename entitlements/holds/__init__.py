"""Holds: amounts set aside of a balance, then used or given back. See README.md of entitlements."""
