"""What every HTTP surface shares: problems, authentication, paging, limits."""
