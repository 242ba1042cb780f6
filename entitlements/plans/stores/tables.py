"""The tables of plans."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from meterline.db.tables import Exact, UtcDateTime, metadata

plans = Table(
    "plans",
    metadata,
    Column("id", String(26), primary_key=True),
    Column("number", Integer, nullable=False),
    Column("namespace", String(64), nullable=False),
    Column("key", String(128), nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("limits", Text, nullable=False),
    Column("rest", JSON, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    UniqueConstraint("namespace", "key", name="uq_plans_namespace_key"),
    UniqueConstraint("namespace", "number", name="uq_plans_namespace_number"),
)
"""`limits` is JSON text, and read by each check; `rest` is what only others need."""

plan_prices = Table(
    "plan_prices",
    metadata,
    Column("namespace", String(64), primary_key=True),
    Column("price_id", String(255), primary_key=True),
    Column("plan_id", String(26), ForeignKey("plans.id"), nullable=False, index=True),
)
"""A price belongs to one plan of a namespace."""

members = Table(
    "plan_members",
    metadata,
    Column("namespace", String(64), primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("plan_id", String(26), ForeignKey("plans.id")),
    Column("overrides", Text, nullable=False),
    Column("assigned_at", UtcDateTime),
    Column("banned_at", UtcDateTime),
    Column("ban_reason", Text),
    Column("refill_anchor", UtcDateTime),
    Column("pending", Boolean, nullable=False),
    Column("due_at", UtcDateTime),
    Column("version", BigInteger, nullable=False),
)
"""`pending`: entitlements are not yet as the plan says. `due_at`: when a refill is to be issued."""
Index("ix_plan_members_plan", members.c.plan_id, members.c.subject)
Index(
    "ix_plan_members_pending",
    members.c.namespace,
    members.c.subject,
    sqlite_where=members.c.pending,
    postgresql_where=members.c.pending,
)
Index("ix_plan_members_due", members.c.due_at)

history = Table(
    "plan_history",
    metadata,
    Column("id", String(26), primary_key=True),
    Column("namespace", String(64), nullable=False),
    Column("subject", Text, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("plan", String(128)),
    Column("reason", Text),
    Column("source", String(32), nullable=False),
    Column("data", JSON, nullable=False),
    Index("ix_plan_history_subject", "namespace", "subject", "id"),
)

rates = Table(
    "plan_rates",
    metadata,
    Column("namespace", String(64), primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("state", LargeBinary, nullable=False),
)
rate_chunks = Table(
    "plan_rate_chunks",
    metadata,
    Column("namespace", String(64), primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("chunk", BigInteger, primary_key=True),
    Column("entries", LargeBinary, nullable=False),
)

stripe_events = Table(
    "stripe_events",
    metadata,
    Column("namespace", String(64), primary_key=True),
    Column("id", String(255), primary_key=True),
    Column("type", String(255), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("received_at", UtcDateTime, nullable=False),
    Column("subject", Text),
    Column("subscription", String(255)),
    Column("outcome", String(16), nullable=False),
    Column("reason", Text),
    Column("plan", String(128)),
    Index("ix_stripe_events_received", "namespace", "received_at", "id"),
)
subscriptions = Table(
    "stripe_subscriptions",
    metadata,
    Column("namespace", String(64), primary_key=True),
    Column("id", String(255), primary_key=True),
    Column("subject", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("changed_at", UtcDateTime, nullable=False),
    Column("plan", String(128)),
    Column("fallback", String(128)),
    Column("failed_period", BigInteger),
    Column("grace_until", UtcDateTime),
    Index("ix_stripe_subscriptions_subject", "namespace", "subject"),
    Index("ix_stripe_subscriptions_grace", "grace_until"),
)
stripe_invoices = Table(
    "stripe_invoices",
    metadata,
    Column("namespace", String(64), primary_key=True),
    Column("id", String(255), primary_key=True),
    Column("subject", Text, nullable=False),
    Column("credits", Exact, nullable=False),
    Column("paid_at", UtcDateTime, nullable=False),
)
"""Payments that granted credits, each once."""
