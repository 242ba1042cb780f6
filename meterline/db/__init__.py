"""Relational state: engine, transactions, migrations."""
