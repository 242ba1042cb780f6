"""Plans in the relational database."""
