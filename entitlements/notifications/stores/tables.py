"""The tables of notifications."""

from sqlalchemy import JSON, BigInteger, Boolean, Column, ForeignKey, Integer, String, Table, Text

from meterline.db.tables import UtcDateTime, metadata

channels = Table(
    "notification_channels",
    metadata,
    Column("id", String(26), primary_key=True),
    Column("namespace", String(64), nullable=False),
    Column("name", String(256), nullable=False),
    Column("url", Text, nullable=False),
    Column("headers", JSON, nullable=False),
    Column("secret", Text, nullable=False),
    Column("old_secrets", JSON, nullable=False),
    Column("disabled", Boolean, nullable=False),
    Column("disabled_reason", Text),
    Column("metadata", JSON, nullable=False),
    Column("failing_since", UtcDateTime),
    Column("paused_until", UtcDateTime),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Column("deleted_at", UtcDateTime),
)

rules = Table(
    "notification_rules",
    metadata,
    Column("id", String(26), primary_key=True),
    Column("namespace", String(64), nullable=False),
    Column("type", String(64), nullable=False),
    Column("name", String(256), nullable=False),
    Column("disabled", Boolean, nullable=False),
    Column("config", JSON, nullable=False),
    Column("metadata", JSON, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Column("deleted_at", UtcDateTime),
)

rule_channels = Table(
    "notification_rule_channels",
    metadata,
    Column("rule_id", String(26), ForeignKey("notification_rules.id"), primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("channel_id", String(26), ForeignKey("notification_channels.id"), nullable=False),
)

events = Table(
    "notification_events",
    metadata,
    Column("id", String(26), primary_key=True),
    Column("namespace", String(64), nullable=False),
    Column("type", String(64), nullable=False),
    Column("rule_id", String(26), ForeignKey("notification_rules.id"), nullable=False),
    Column("subject", Text),
    Column("feature_id", String(26)),
    Column("feature_key", String(64)),
    Column("payload", Text, nullable=False),
    Column("annotations", JSON, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)

deliveries = Table(
    "notification_deliveries",
    metadata,
    Column("id", String(26), primary_key=True),
    Column("event_id", String(26), ForeignKey("notification_events.id"), nullable=False),
    Column("channel_id", String(26), ForeignKey("notification_channels.id"), nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("tried", Integer, nullable=False),
    # While it is being tried, `claim` names the try, and the next one is when the claim lapses.
    Column("claim", String(26)),
    Column("next_attempt_at", UtcDateTime),
    Column("updated_at", UtcDateTime, nullable=False),
)

attempts = Table(
    "notification_attempts",
    metadata,
    Column("id", String(26), primary_key=True),
    Column("delivery_id", String(26), ForeignKey("notification_deliveries.id"), nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("state", String(16), nullable=False),
    Column("status", Integer),
    Column("body", Text, nullable=False),
    Column("duration_ms", Integer, nullable=False),
    Column("url", Text, nullable=False),
)

checks = Table(
    "notification_checks",
    metadata,
    Column("entitlement_id", String(80), primary_key=True),
    Column("reason", String(32), primary_key=True),
    Column("due_at", UtcDateTime, nullable=False),
    # Changes with each request, so that one made during a check outlives the check.
    Column("stamp", String(26), nullable=False),
    Column("claimed_until", UtcDateTime),
)

seen = Table(
    "notification_seen",
    metadata,
    Column("entitlement_id", String(26), primary_key=True),
    Column("namespace", String(64), nullable=False),
    Column("period_start", UtcDateTime, nullable=False),
    Column("balance", Text, nullable=False),
)

fired = Table(
    "notification_fired",
    metadata,
    Column("key", Text, primary_key=True),
    Column("until", UtcDateTime, nullable=False),
)

rejected = Table(
    "notification_rejected",
    metadata,
    Column("namespace", String(64), primary_key=True),
    Column("reason", String(200), primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("first_at", UtcDateTime, nullable=False),
    Column("last_at", UtcDateTime, nullable=False),
)
