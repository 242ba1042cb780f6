"""Plans, who has them, what they may do how fast, and the payments that move them."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.create_table(
        "plans",
        sa.Column("id", sa.String(26), primary_key=True),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("namespace", sa.String(64), nullable=False),
        sa.Column("key", sa.String(128), nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("limits", sa.Text, nullable=False),
        sa.Column("rest", sa.JSON, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.UniqueConstraint("namespace", "key", name="uq_plans_namespace_key"),
        sa.UniqueConstraint("namespace", "number", name="uq_plans_namespace_number"),
    )
    op.create_table(
        "plan_prices",
        sa.Column("namespace", sa.String(64), primary_key=True),
        sa.Column("price_id", sa.String(255), primary_key=True),
        sa.Column("plan_id", sa.String(26), sa.ForeignKey("plans.id"), nullable=False),
    )
    op.create_index("ix_plan_prices_plan_id", "plan_prices", ["plan_id"])
    _members()
    _rates()
    _stripe()


def _members() -> None:
    op.create_table(
        "plan_members",
        sa.Column("namespace", sa.String(64), primary_key=True),
        sa.Column("subject", sa.Text, primary_key=True),
        sa.Column("plan_id", sa.String(26), sa.ForeignKey("plans.id")),
        sa.Column("overrides", sa.Text, nullable=False),
        sa.Column("assigned_at", sa.DateTime(timezone=True)),
        sa.Column("banned_at", sa.DateTime(timezone=True)),
        sa.Column("ban_reason", sa.Text),
        sa.Column("refill_anchor", sa.DateTime(timezone=True)),
        sa.Column("pending", sa.Boolean, nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True)),
        sa.Column("version", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_plan_members_plan", "plan_members", ["plan_id", "subject"])
    op.create_index(
        "ix_plan_members_pending",
        "plan_members",
        ["namespace", "subject"],
        sqlite_where=sa.text("pending"),
        postgresql_where=sa.text("pending"),
    )
    op.create_index("ix_plan_members_due", "plan_members", ["due_at"])
    op.create_table(
        "plan_history",
        sa.Column("id", sa.String(26), primary_key=True),
        sa.Column("namespace", sa.String(64), nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("plan", sa.String(128)),
        sa.Column("reason", sa.Text),
        sa.Column("source", sa.String(32), nullable=False),
        sa.Column("data", sa.JSON, nullable=False),
    )
    op.create_index("ix_plan_history_subject", "plan_history", ["namespace", "subject", "id"])


def _rates() -> None:
    op.create_table(
        "plan_rates",
        sa.Column("namespace", sa.String(64), primary_key=True),
        sa.Column("subject", sa.Text, primary_key=True),
        sa.Column("state", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "plan_rate_chunks",
        sa.Column("namespace", sa.String(64), primary_key=True),
        sa.Column("subject", sa.Text, primary_key=True),
        sa.Column("chunk", sa.BigInteger, primary_key=True),
        sa.Column("entries", sa.LargeBinary, nullable=False),
    )


def _stripe() -> None:
    op.create_table(
        "stripe_events",
        sa.Column("namespace", sa.String(64), primary_key=True),
        sa.Column("id", sa.String(255), primary_key=True),
        sa.Column("type", sa.String(255), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("subject", sa.Text),
        sa.Column("subscription", sa.String(255)),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("plan", sa.String(128)),
    )
    op.create_index(
        "ix_stripe_events_received", "stripe_events", ["namespace", "received_at", "id"]
    )
    op.create_table(
        "stripe_subscriptions",
        sa.Column("namespace", sa.String(64), primary_key=True),
        sa.Column("id", sa.String(255), primary_key=True),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("plan", sa.String(128)),
        sa.Column("fallback", sa.String(128)),
        sa.Column("failed_period", sa.BigInteger),
        sa.Column("grace_until", sa.DateTime(timezone=True)),
    )
    op.create_index(
        "ix_stripe_subscriptions_subject", "stripe_subscriptions", ["namespace", "subject"]
    )
    op.create_index("ix_stripe_subscriptions_grace", "stripe_subscriptions", ["grace_until"])
    op.create_table(
        "stripe_invoices",
        sa.Column("namespace", sa.String(64), primary_key=True),
        sa.Column("id", sa.String(255), primary_key=True),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("credits", sa.Text, nullable=False),
        sa.Column("paid_at", sa.DateTime(timezone=True), nullable=False),
    )
