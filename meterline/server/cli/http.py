"""Calls of the command line to a server."""

import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Self

import httpx

from meterline.kernel.errors import MeterlineError, UnavailableError

_TIMEOUT_SECONDS = 60.0


class Api:
    """A server's API. What the server refuses is raised in its own words."""

    def __init__(
        self, url: str, api_key: str | None, transport: httpx.BaseTransport | None = None
    ) -> None:
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._client = httpx.Client(
            base_url=url, headers=headers, timeout=_TIMEOUT_SECONDS, transport=transport
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def call(
        self,
        method: str,
        path: str,
        *,
        params: Sequence[tuple[str, str]] = (),
        body: object = None,
        accept: str = "application/json",
    ) -> httpx.Response:
        """The answer, if it is a good one."""
        try:
            response = self._client.request(
                method, path, params=list(params) or None, json=body, headers={"accept": accept}
            )
        except httpx.HTTPError as error:
            raise UnavailableError(
                f"no answer from {self._client.base_url}: {error}. Is the server running?"
                " Start one with `meterline serve`, or name it with --url"
            ) from None
        if response.is_error:
            raise MeterlineError(_refusal(response))
        return response

    def json(self, method: str, path: str, **arguments: Any) -> Any:
        """The answer's JSON, with numbers that lose no digit."""
        text = self.call(method, path, **arguments).text
        return json.loads(text, parse_float=Decimal)


def _refusal(response: httpx.Response) -> str:
    try:
        problem = response.json()
        lines = [f"{problem['title']}: {problem.get('detail', '')}".rstrip(": ")]
        faults = problem.get("extensions", {}).get("validationErrors", [])
        lines += [f"  {fault['where']}: {fault['reason']}" for fault in faults]
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"the server answered {response.status_code}"
    return "\n".join(lines)
