"""The use cases of entitlements: what the API and the workers call."""
