"""The HTTP API of entitlements: routers made by functions that take their service."""
