# Written by sdk/unasync.py from _async/_meterline.py: change that file.
"""The client."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import httpx2

from meterline_sdk import _json
from meterline_sdk._background import buffer_to, records_to
from meterline_sdk._events import event
from meterline_sdk._json import body
from meterline_sdk._request import Request, RetryPolicy, segment
from meterline_sdk._request import idempotency_key as new_key
from meterline_sdk._sync._client import Transport, without_waiting
from meterline_sdk._sync._resource import JSON, every
from meterline_sdk._sync.resources.credits import (
    CreditRates,
    Credits,
    Holds,
    Reservations,
    Transactions,
)
from meterline_sdk._sync.resources.entitlements import Entitlements, Features
from meterline_sdk._sync.resources.events import Events
from meterline_sdk._sync.resources.meters import Meters
from meterline_sdk._sync.resources.notifications import Notifications
from meterline_sdk._sync.resources.plans import Plans, Stripe
from meterline_sdk._sync.resources.subjects import Keys, Portal, Subjects
from meterline_sdk._sync.resources.usage import Prices, Usage
from meterline_sdk.buffer import EventBuffer, close_all
from meterline_sdk.errors import (
    ConnectionFailedError,
    ForbiddenError,
    RateLimitError,
    ServerError,
    UsageLimitError,
)
from meterline_sdk.models import Decision, OpenedHold, Page, Value

T = TypeVar("T")

OnOutage = Literal["raise", "allow", "deny"]


class Meterline:
    """A Meterline server.

    `base_url` and `api_key` come from METERLINE_URL and METERLINE_API_KEY if not given.
    `on_outage` says what `check` and `has_access` answer when nobody can be asked: `raise`
    (`ConnectionFailedError` or `ServerError`), `allow` (fail open) or `deny` (fail closed).
    `buffer` holds keyword arguments of `EventBuffer`, for what `track_event` and
    `record_response` fill, and may hold the `http_client` that its threads use.
    An `http_client` that is given stays the caller's: to close, and to make anew after a fork.
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        timeout_seconds: float = 10.0,
        retries: RetryPolicy | None = None,
        on_outage: OnOutage = "raise",
        buffer: Mapping[str, Any] | None = None,
        http_client: httpx2.Client | None = None,
    ) -> None:
        self.transport = Transport(
            base_url,
            api_key,
            timeout_seconds=timeout_seconds,
            retries=retries,
            http_client=http_client,
        )
        self._on_outage = on_outage
        self._buffer_options = dict(buffer or {})
        self._buffer: EventBuffer | None = None
        self._records: EventBuffer | None = None
        self.events = Events(self.transport)
        self.meters = Meters(self.transport)
        self.subjects = Subjects(self.transport)
        self.portal = Portal(self.transport)
        self.features = Features(self.transport)
        self.entitlements = Entitlements(self.transport)
        self.holds = Holds(self.transport)
        self.credits = Credits(self.transport)
        self.reservations = Reservations(self.transport)
        self.transactions = Transactions(self.transport)
        self.credit_rates = CreditRates(self.transport)
        self.plans = Plans(self.transport)
        self.stripe = Stripe(self.transport)
        self.usage = Usage(self.transport)
        self.prices = Prices(self.transport)
        self.notifications = Notifications(self.transport)
        self.keys = Keys(self.transport)

    def every(self, listing: Callable[..., Page[T]], *args: Any, **filters: Any) -> Iterator[T]:
        """All items of a listing, page after page: `every(meterline.usage.list, key="bot")`."""
        return every(listing, *args, **filters)

    @property
    def buffer(self) -> EventBuffer:
        """What `track_event` fills: flush it, or look at its length."""
        if self._buffer is None:
            self._buffer = buffer_to(self.transport, **self._buffer_options)
        return self._buffer

    def track_event(
        self,
        type: str,
        subject: str,
        data: Mapping[str, Any] | None = None,
        *,
        id: str | None = None,
        source: str = "meterline-sdk",
        time: datetime | None = None,
    ) -> bool:
        """Send an event in the background; returns at once.

        False when it was dropped: the buffer is full, or the data is no JSON.
        """
        return self.buffer.put(event(type, subject, data, id=id, source=source, time=time))

    def check(
        self,
        subject: str,
        *,
        model: str | None = None,
        feature: str | None = None,
        tokens: int | None = None,
        cost_usd: Decimal | None = None,
        credits: Decimal | int | None = None,
        hold_seconds: int | None = None,
        dry_run: bool = False,
        idempotency_key: str | None = None,
    ) -> Decision:
        """May the subject do this now? All its limits hold at once; a refusal is an answer.

        `tokens`, `cost_usd` and `credits` are what it will use, as well as you know. With
        `hold_seconds` they are set aside for so long, where a limit or a balance is to hold;
        recording the call with the decision's `check_id` gives them back (credits: confirm or
        release the hold). A `dry_run` takes no request of the rates. A check that sets something
        aside does it once, however often it is tried; with an `idempotency_key` any check does.
        """
        try:
            return self.require(
                subject,
                model=model,
                feature=feature,
                tokens=tokens,
                cost_usd=cost_usd,
                credits=credits,
                hold_seconds=hold_seconds,
                dry_run=dry_run,
                idempotency_key=idempotency_key,
            )
        except (UsageLimitError, RateLimitError) as error:
            return _refused(error)
        except ForbiddenError as error:
            if error.said("limitType") is None:
                raise
            return _refused(error)
        except (ConnectionFailedError, ServerError):
            if self._on_outage == "raise":
                raise
            return Decision(allowed=False, degraded=True)

    def require(
        self,
        subject: str,
        *,
        model: str | None = None,
        feature: str | None = None,
        tokens: int | None = None,
        cost_usd: Decimal | None = None,
        credits: Decimal | int | None = None,
        hold_seconds: int | None = None,
        dry_run: bool = False,
        idempotency_key: str | None = None,
    ) -> Decision:
        """As `check`, but a refusal raises.

        Raises `UsageLimitError`, `RateLimitError`, `BannedError`, or `ForbiddenError` for a
        feature that the subject does not have.
        """
        estimate = body(tokens=tokens, cost_usd=cost_usd, credits=credits)
        asked = body(
            subject=subject,
            model=model,
            feature=feature,
            estimate=estimate or None,
            hold=None if hold_seconds is None else {"ttlSeconds": hold_seconds},
            dry_run=dry_run or None,
        )
        # A key makes the server remember the answer, which costs more than a check that holds
        # nothing; twice it would only take one more request of the rates.
        key = idempotency_key or (None if hold_seconds is None else new_key())
        headers = JSON if key is None else {**JSON, "idempotency-key": key}
        request = Request("POST", "/api/v1/check", {}, _json.dumps(asked), headers, decides=True)
        try:
            return _json.read(Decision, self.transport.send(request))
        except (ConnectionFailedError, ServerError):
            if self._on_outage == "raise":
                raise
            if self._on_outage == "deny":
                raise ConnectionFailedError("nobody can be asked, so the answer is no") from None
            return Decision(allowed=True, degraded=True)

    def has_access(self, subject: str, feature_key: str) -> Value:
        """Whether the subject may use a feature now."""
        try:
            return self.entitlements.value(subject, feature_key)
        except (ConnectionFailedError, ServerError):
            if self._on_outage == "raise":
                raise
            return Value(has_access=self._on_outage == "allow", degraded=True)

    def estimate_cost(
        self, model: str, *, provider: str | None, input_tokens: int, output_tokens: int
    ) -> Decimal | None:
        """US dollars that so many tokens cost; None without a price, or when nobody can be asked.

        When nobody can be asked and the policy is to raise, it raises.
        """
        try:
            found = self.prices.cost(
                model, provider=provider, input_tokens=input_tokens, output_tokens=output_tokens
            )
        except (ConnectionFailedError, ServerError):
            if self._on_outage == "raise":
                raise
            return None
        return found.cost_usd

    def record_response(
        self,
        subject: str,
        response: Mapping[str, Any],
        *,
        provider: str,
        model_id: str | None = None,
        estimated: bool = False,
        id: str | None = None,
        tags: Sequence[str] | None = None,
        conversation_id: str | None = None,
        check_id: str | None = None,
    ) -> bool:
        """Record in the background what a provider's answer says was used; returns at once.

        It is counted once for its `id`, and gives back what the check `check_id` set aside. False
        when it was dropped, as of `track_event`.
        """
        record = body(
            key=subject,
            provider=provider,
            model_id=model_id,
            response=response,
            estimated=estimated or None,
            tags=tags,
            conversation_id=conversation_id,
            check_id=check_id,
            id=id or new_key(),
        )
        return self.records.put({"path": "/api/v1/track", "body": record})

    def give_back(self, subject: str, holds: Sequence[OpenedHold]) -> None:
        """Release in the background what a check set aside, for a call that used nothing."""
        for one in holds:
            place = f"/api/v1/subjects/{segment(subject)}/entitlements/{segment(one.feature_key)}"
            path = f"{place}/holds/{segment(one.id)}/release"
            self.records.put({"path": path, "body": {}, "lost": True})

    @property
    def records(self) -> EventBuffer:
        """What `record_response` fills: flush it, or look at its length."""
        if self._records is None:
            self._records = records_to(self.transport, **self._buffer_options)
        return self._records

    def close(self) -> None:
        """Send what waits in the buffers, and close the connections."""
        made = [one for one in (self._buffer, self._records) if one is not None]
        without_waiting(close_all, made)
        self.transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _refused(error: UsageLimitError | RateLimitError | ForbiddenError) -> Decision:
    names = ("limitType", "limit", "current", "retryAfter", "subject", "plan")
    said = {name: error.said(name) for name in names}
    told = {name: value for name, value in said.items() if value is not None}
    return _json.read(Decision, {**told, "detail": error.detail, "allowed": False})
