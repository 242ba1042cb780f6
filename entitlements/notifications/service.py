"""Channels, rules and events, as people manage them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncConnection

from entitlements.notifications.model import (
    Channel,
    Event,
    FeatureRef,
    OldSecret,
    Rule,
    RuleSpec,
    ValueReader,
)
from entitlements.notifications.options import NotificationLimits
from entitlements.notifications.sample import sample_event
from entitlements.notifications.signing import generate_secret
from entitlements.notifications.stores import channels, checks, events, outbox, rules
from entitlements.notifications.stores.events import EventFilter
from entitlements.notifications.stores.paging import Page, Sorting
from entitlements.notifications.validation import channel_faults, fail, rule_faults
from meterline.db import mutex
from meterline.db.engine import Database
from meterline.kernel.clock import Clock
from meterline.kernel.errors import ConflictError, FieldError, NotFoundError, ValidationError
from meterline.kernel.ids import new_ulid

_MOST_OLD_SECRETS = 3


@dataclass(frozen=True, slots=True)
class ChannelSpec:
    """What a person says of a channel. Without a secret it keeps its own, or gets a new one."""

    name: str
    url: str
    disabled: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    secret: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


class NotificationService:
    """Everything under `/api/v1/notification`, in the namespace of the caller."""

    def __init__(
        self,
        database: Database,
        reader: ValueReader,
        clock: Clock,
        limits: NotificationLimits | None = None,
        *,
        allow_private: bool = False,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self._database = database
        self._reader = reader
        self._clock = clock
        self.limits = limits or NotificationLimits()
        self._allow_private = allow_private
        self._wake = wake

    async def create_channel(self, namespace: str, spec: ChannelSpec) -> Channel:
        """Make a channel."""
        self._check_channel(spec)
        now = self._clock()
        channel = Channel(
            id=new_ulid(now),
            namespace=namespace,
            name=spec.name,
            url=spec.url,
            headers=spec.headers,
            secret=spec.secret or generate_secret(),
            old_secrets=(),
            disabled=spec.disabled,
            disabled_reason=None,
            metadata=spec.metadata,
            created_at=now,
            updated_at=now,
        )
        async with self._database.transaction() as conn:
            await mutex.alone(conn, "notification channels", namespace)
            if await channels.count(conn, namespace) >= self.limits.max_channels:
                raise ConflictError(f"the namespace has {self.limits.max_channels} channels")
            await channels.add(conn, channel)
        return channel

    async def update_channel(self, namespace: str, channel_id: str, spec: ChannelSpec) -> Channel:
        """Replace what a channel says.

        With another secret, messages bear two signatures for a while, so that receivers can be
        changed one after the other.
        """
        self._check_channel(spec)
        now = self._clock()
        async with self._database.transaction() as conn:
            old = await self._channel(conn, namespace, channel_id)
            channel = replace(
                old,
                name=spec.name,
                url=spec.url,
                headers=spec.headers,
                secret=spec.secret or old.secret,
                old_secrets=self._old_secrets(old, spec.secret, now),
                disabled=spec.disabled,
                disabled_reason=old.disabled_reason if spec.disabled else None,
                metadata=spec.metadata,
                updated_at=now,
            )
            await channels.change(conn, channel)
            if channel.disabled:
                await channels.give_up(conn, channel.id, "the channel is disabled", now)
        return channel

    async def get_channel(self, namespace: str, channel_id: str) -> Channel:
        """A channel; a deleted one still says that it is deleted."""
        async with self._database.read() as conn:
            found = await channels.get(conn, namespace, channel_id)
        if found is None:
            raise NotFoundError("there is no such channel")
        return found

    async def list_channels(
        self, namespace: str, sorting: Sorting, *, deleted: bool = False, disabled: bool = False
    ) -> Page[Channel]:
        """A page of channels."""
        async with self._database.read() as conn:
            return await channels.listed(
                conn, namespace, sorting, deleted=deleted, disabled=disabled
            )

    async def delete_channel(self, namespace: str, channel_id: str) -> None:
        """Delete a channel that no rule sends to."""
        async with self._database.transaction() as conn:
            channel = await self._channel(conn, namespace, channel_id)
            users = await rules.using(conn, channel.id)
            if users:
                raise ConflictError(
                    "rules send to this channel: " + ", ".join(users),
                    extensions={"rules": list(users)},
                )
            await channels.remove(conn, channel.id, self._clock())

    async def create_rule(
        self, namespace: str, spec: RuleSpec, features: Sequence[str] = ()
    ) -> Rule:
        """Make a rule. It looks at every entitlement at once; `features` are ids or keys."""
        spec = await self._checked_rule(namespace, spec, features)
        now = self._clock()
        rule = Rule(new_ulid(now), namespace, spec, now, now)
        async with self._database.transaction() as conn:
            await mutex.alone(conn, checks.RULES)
            if await rules.count(conn, namespace) >= self.limits.max_rules:
                raise ConflictError(f"the namespace has {self.limits.max_rules} rules")
            await self._check_channels(conn, rule)
            await self._look_at_all(conn, rule, now)
            await rules.add(conn, rule)
        self._wake()
        return rule

    async def update_rule(
        self, namespace: str, rule_id: str, spec: RuleSpec, features: Sequence[str] = ()
    ) -> Rule:
        """Replace what a rule says; its type stays. What has fired in this period has fired."""
        spec = await self._checked_rule(namespace, spec, features)
        now = self._clock()
        async with self._database.transaction() as conn:
            await mutex.alone(conn, checks.RULES)
            await rules.lock(conn, rule_id)
            old = await self._rule(conn, namespace, rule_id)
            if spec.type is not old.spec.type:
                fail([FieldError("type", f"is {old.spec.type} and stays so")])
            rule = replace(old, spec=spec, updated_at=now)
            await self._check_channels(conn, rule)
            await self._look_at_all(conn, rule, now)
            await rules.change(conn, rule)
        self._wake()
        return rule

    async def get_rule(self, namespace: str, rule_id: str) -> Rule:
        """A rule; a deleted one still says that it is deleted."""
        async with self._database.read() as conn:
            found = await rules.get(conn, namespace, rule_id)
        if found is None:
            raise NotFoundError("there is no such rule")
        return found

    async def list_rules(
        self,
        namespace: str,
        sorting: Sorting,
        *,
        deleted: bool = False,
        disabled: bool = False,
        features: Sequence[str] = (),
        channels: Sequence[str] = (),
    ) -> Page[Rule]:
        """A page of rules."""
        async with self._database.read() as conn:
            return await rules.listed(
                conn,
                namespace,
                sorting,
                deleted=deleted,
                disabled=disabled,
                features=features,
                channels=channels,
            )

    async def delete_rule(self, namespace: str, rule_id: str) -> None:
        """Delete a rule; its events stay."""
        async with self._database.transaction() as conn:
            await rules.lock(conn, rule_id)
            rule = await self._rule(conn, namespace, rule_id)
            await rules.remove(conn, rule.id, self._clock())

    async def test_rule(self, namespace: str, rule_id: str) -> Event:
        """Send an example of what the rule sends to its channels."""
        now = self._clock()
        async with self._database.transaction() as conn:
            rule = await self._rule(conn, namespace, rule_id)
            event_id = await outbox.add(conn, rule, sample_event(rule, now), now)
            event = await events.get(conn, namespace, event_id)
        assert event is not None
        self._wake()
        return event

    async def get_event(self, namespace: str, event_id: str) -> Event:
        """An event."""
        async with self._database.read() as conn:
            return await self._event(conn, namespace, event_id)

    async def list_events(
        self, namespace: str, wanted: EventFilter, sorting: Sorting
    ) -> Page[Event]:
        """A page of events."""
        async with self._database.read() as conn:
            return await events.listed(conn, namespace, wanted, sorting)

    async def resend(self, namespace: str, event_id: str, to: Sequence[str] = ()) -> None:
        """Send an event again, to these channels of its rule or to all; with the same id."""
        now = self._clock()
        async with self._database.transaction() as conn:
            event = await self._event(conn, namespace, event_id)
            known = [one.channel_id for one in event.deliveries]
            known += [one for one in event.rule.spec.channels if one not in known]
            chosen = [one.upper() for one in to] or known
            live = await channels.by_ids(conn, namespace, known)
            faults = [
                FieldError("channels", f"{one} is no channel of this event's rule")
                for one in chosen
                if to and one not in live
            ]
            fail(faults)
            ready = [live[one] for one in dict.fromkeys(chosen) if one in live]
            enabled = [one for one in ready if not one.disabled]
            if not enabled:
                raise ConflictError("its channels are disabled or deleted")
            await outbox.resend(conn, event.id, enabled, now)
        self._wake()

    def _check_channel(self, spec: ChannelSpec) -> None:
        fail(
            channel_faults(
                spec.url,
                spec.headers,
                spec.secret,
                self.limits,
                allow_private=self._allow_private,
            )
        )

    def _old_secrets(self, old: Channel, secret: str | None, now: datetime) -> Sequence[OldSecret]:
        kept = [one for one in old.old_secrets if now < one.until and one.secret != secret]
        if secret is None or secret == old.secret:
            return kept
        until = now + timedelta(seconds=self.limits.old_secret_seconds)
        return [OldSecret(old.secret, until), *kept][:_MOST_OLD_SECRETS]

    async def _checked_rule(
        self, namespace: str, spec: RuleSpec, features: Sequence[str]
    ) -> RuleSpec:
        fail(rule_faults(spec, self.limits))
        if len(features) > self.limits.max_features_of_rule:
            fail([FieldError("features", f"more than {self.limits.max_features_of_rule}")])
        found: list[FeatureRef] = []
        for name in dict.fromkeys(features):
            feature = await self._reader.feature(namespace, name)
            if feature is None:
                raise ValidationError(
                    f"features: there is no feature {name[:64]!r}",
                    errors=[FieldError("features", f"there is no feature {name[:64]!r}")],
                )
            if feature not in found:
                found.append(feature)
        ids = tuple(one.upper() for one in spec.channels)
        return replace(spec, features=tuple(found), channels=ids)

    async def _check_channels(self, conn: AsyncConnection, rule: Rule) -> None:
        live = await channels.by_ids(conn, rule.namespace, rule.spec.channels, lock=True)
        fail(
            FieldError("channels", f"there is no channel {one[:26]}")
            for one in rule.spec.channels
            if one not in live
        )

    async def _look_at_all(self, conn: AsyncConnection, rule: Rule, now: datetime) -> None:
        if rule.spec.disabled:
            return
        if not await rules.active(conn, rule.namespace):
            # Nothing was watched: what was seen last is from another time.
            await checks.forget_seen(conn, rule.namespace)
        await checks.schedule(conn, [(rule.namespace, checks.SWEEP, now)], now)

    async def _channel(self, conn: AsyncConnection, namespace: str, channel_id: str) -> Channel:
        """The channel, for a change."""
        found = await channels.get(conn, namespace, channel_id, lock=True)
        if found is None or found.deleted_at is not None:
            raise NotFoundError("there is no such channel")
        return found

    async def _rule(self, conn: AsyncConnection, namespace: str, rule_id: str) -> Rule:
        found = await rules.get(conn, namespace, rule_id)
        if found is None or found.deleted_at is not None:
            raise NotFoundError("there is no such rule")
        return found

    async def _event(self, conn: AsyncConnection, namespace: str, event_id: str) -> Event:
        found = await events.get(conn, namespace, event_id)
        if found is None:
            raise NotFoundError("there is no such event")
        return found
