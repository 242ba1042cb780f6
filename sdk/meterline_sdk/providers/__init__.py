"""What each provider's answers say about usage. Pure; the providers' packages are not imported."""
