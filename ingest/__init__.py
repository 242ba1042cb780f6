"""The ingest gateway: bytes in, durable events out."""
