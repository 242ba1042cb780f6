"""Plans: what a subject may use, how fast, and for how much; and the one call that decides it."""
