"""Portal tokens: a customer reads its own usage and nothing else."""
