"""What can be done with features, entitlements and grants: rules, stores and meters together."""
