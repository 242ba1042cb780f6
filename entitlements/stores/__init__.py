"""What entitlements keep in the relational database."""
