"""The aggregator's HTTP API: routers made by functions that take their service."""
