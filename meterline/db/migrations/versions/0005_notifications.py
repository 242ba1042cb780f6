"""Notifications: channels, rules, events and deliveries, and what is to be checked."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "notification_channels",
        sa.Column("id", sa.String(26), primary_key=True),
        sa.Column("namespace", sa.String(64), nullable=False),
        sa.Column("name", sa.String(256), nullable=False),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("headers", sa.JSON, nullable=False),
        sa.Column("secret", sa.Text, nullable=False),
        sa.Column("old_secrets", sa.JSON, nullable=False),
        sa.Column("disabled", sa.Boolean, nullable=False),
        sa.Column("disabled_reason", sa.Text),
        sa.Column("metadata", sa.JSON, nullable=False),
        sa.Column("failing_since", sa.DateTime(timezone=True)),
        sa.Column("paused_until", sa.DateTime(timezone=True)),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True)),
    )
    op.create_index("ix_notification_channels_namespace", "notification_channels", ["namespace"])
    op.create_table(
        "notification_rules",
        sa.Column("id", sa.String(26), primary_key=True),
        sa.Column("namespace", sa.String(64), nullable=False),
        sa.Column("type", sa.String(64), nullable=False),
        sa.Column("name", sa.String(256), nullable=False),
        sa.Column("disabled", sa.Boolean, nullable=False),
        sa.Column("config", sa.JSON, nullable=False),
        sa.Column("metadata", sa.JSON, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True)),
    )
    op.create_index("ix_notification_rules_namespace", "notification_rules", ["namespace"])
    op.create_table(
        "notification_rule_channels",
        sa.Column(
            "rule_id", sa.String(26), sa.ForeignKey("notification_rules.id"), primary_key=True
        ),
        sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column(
            "channel_id", sa.String(26), sa.ForeignKey("notification_channels.id"), nullable=False
        ),
    )
    op.create_index(
        "ix_notification_rule_channels_channel_id", "notification_rule_channels", ["channel_id"]
    )
    op.create_table(
        "notification_events",
        sa.Column("id", sa.String(26), primary_key=True),
        sa.Column("namespace", sa.String(64), nullable=False),
        sa.Column("type", sa.String(64), nullable=False),
        sa.Column("rule_id", sa.String(26), sa.ForeignKey("notification_rules.id"), nullable=False),
        sa.Column("subject", sa.Text),
        sa.Column("feature_id", sa.String(26)),
        sa.Column("feature_key", sa.String(64)),
        sa.Column("payload", sa.Text, nullable=False),
        sa.Column("annotations", sa.JSON, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index(
        "ix_notification_events_namespace", "notification_events", ["namespace", "created_at"]
    )
    op.create_index("ix_notification_events_created_at", "notification_events", ["created_at"])
    op.create_table(
        "notification_deliveries",
        sa.Column("id", sa.String(26), primary_key=True),
        sa.Column(
            "event_id", sa.String(26), sa.ForeignKey("notification_events.id"), nullable=False
        ),
        sa.Column(
            "channel_id", sa.String(26), sa.ForeignKey("notification_channels.id"), nullable=False
        ),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("tried", sa.Integer, nullable=False),
        sa.Column("claim", sa.String(26)),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True)),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index(
        "ux_notification_deliveries_event",
        "notification_deliveries",
        ["event_id", "channel_id"],
        unique=True,
    )
    op.create_index(
        "ix_notification_deliveries_due",
        "notification_deliveries",
        ["channel_id", "next_attempt_at"],
    )
    op.create_table(
        "notification_attempts",
        sa.Column("id", sa.String(26), primary_key=True),
        sa.Column(
            "delivery_id",
            sa.String(26),
            sa.ForeignKey("notification_deliveries.id"),
            nullable=False,
        ),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("status", sa.Integer),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("duration_ms", sa.Integer, nullable=False),
        sa.Column("url", sa.Text, nullable=False),
    )
    op.create_index(
        "ix_notification_attempts_delivery_id", "notification_attempts", ["delivery_id"]
    )
    op.create_table(
        "notification_checks",
        sa.Column("entitlement_id", sa.String(80), primary_key=True),
        sa.Column("reason", sa.String(32), primary_key=True),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("stamp", sa.String(26), nullable=False),
        sa.Column("claimed_until", sa.DateTime(timezone=True)),
    )
    op.create_index("ix_notification_checks_due_at", "notification_checks", ["due_at"])
    op.create_table(
        "notification_seen",
        sa.Column("entitlement_id", sa.String(26), primary_key=True),
        sa.Column("namespace", sa.String(64), nullable=False),
        sa.Column("period_start", sa.DateTime(timezone=True), nullable=False),
        sa.Column("balance", sa.Text, nullable=False),
    )
    op.create_table(
        "notification_fired",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("ix_notification_fired_until", "notification_fired", ["until"])
    op.create_table(
        "notification_rejected",
        sa.Column("namespace", sa.String(64), primary_key=True),
        sa.Column("reason", sa.String(200), primary_key=True),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("first_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), nullable=False),
    )
