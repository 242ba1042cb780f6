"""Ten minutes of small batches: resident memory must stay flat.

python -m bench.soak [--minutes 10]
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench.serving import folder_bytes, serving
from bench.traffic import batches, events, post_all

_A_BATCH = 50
_A_SECOND = 10


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the resident memory once a minute."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=int, default=10)
    options = parser.parse_args(arguments)
    print(f"batches of {_A_BATCH}, {_A_SECOND} a second, and a query after each minute")
    with (
        tempfile.TemporaryDirectory() as name,
        serving(Path(name)) as server,
        server.client() as client,
    ):
        spec = {
            "slug": "tokens",
            "eventType": "llm.usage",
            "aggregation": "SUM",
            "valueProperty": "$.tokens_in",
            "groupBy": {"model": "$.model"},
        }
        client.post("/api/v1/meters", json=spec).raise_for_status()
        for minute in range(options.minutes):
            bodies = batches(events(60 * _A_SECOND * _A_BATCH, seed=minute), _A_BATCH)
            begin = time.perf_counter()
            post_all(server.url, bodies, connections=1, rate_per_second=_A_SECOND)
            client.get("/api/v1/meters/tokens/query", params={"groupBy": "model"})
            stored = (minute + 1) * len(bodies) * _A_BATCH
            print(
                f"  minute {minute + 1:>2}   {server.resident_mib():>6.0f} MiB resident,"
                f" {folder_bytes(Path(name)) / stored:>5.0f} B/event on disk,"
                f" {time.perf_counter() - begin:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
