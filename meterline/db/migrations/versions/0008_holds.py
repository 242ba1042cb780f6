"""Holds, histories of balances, rates of credits, and requests with an `Idempotency-Key`."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    _accounts()
    _holds()
    _entries()
    _credit_rates()
    _idempotency()


def _accounts() -> None:
    op.create_table(
        "hold_accounts",
        sa.Column("namespace", sa.String(64), primary_key=True),
        sa.Column("subject", sa.Text, primary_key=True),
        sa.Column("feature_key", sa.String(64), primary_key=True),
        sa.Column("held", sa.Text, nullable=False),
        sa.Column("pending", sa.Text, nullable=False),
        sa.Column("next_expiry", sa.BigInteger),
        sa.Column("entries", sa.BigInteger, nullable=False),
        sa.Column("ledger", sa.Text, nullable=False),
        sa.Column("ledger_at", sa.BigInteger, nullable=False),
    )
    op.create_index(
        "ix_hold_accounts_next_expiry",
        "hold_accounts",
        ["next_expiry"],
        sqlite_where=sa.text("next_expiry IS NOT NULL"),
        postgresql_where=sa.text("next_expiry IS NOT NULL"),
    )


def _holds() -> None:
    op.create_table(
        "holds",
        sa.Column("namespace", sa.String(64), primary_key=True),
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("feature_key", sa.String(64), nullable=False),
        sa.Column("entitlement_id", sa.String(26), nullable=False),
        sa.Column("face", sa.String(16), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("amount", sa.Text, nullable=False),
        sa.Column("ttl_seconds", sa.Text, nullable=False),
        sa.Column("on_excess", sa.String(16), nullable=False),
        sa.Column("model", sa.Text),
        sa.Column("details", sa.Text, nullable=False),
        sa.Column("metadata", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger),
        sa.Column("closed_at", sa.BigInteger),
        sa.Column("confirmed", sa.Text),
        sa.Column("limit_amount", sa.Text),
        sa.Column("current_amount", sa.Text),
        sa.Column("available", sa.Text),
        sa.Column("closing", sa.Text),
        sa.Column("settled", sa.Boolean, nullable=False),
        sa.Column("outbox", sa.Text),
    )
    op.create_index(
        "ix_holds_open",
        "holds",
        ["namespace", "subject", "feature_key", "expires_at"],
        sqlite_where=sa.text("state = 'open'"),
        postgresql_where=sa.text("state = 'open'"),
    )
    op.create_index(
        "ix_holds_subject",
        "holds",
        ["namespace", "subject", "feature_key", "created_at", "id"],
    )
    op.create_index(
        "ix_holds_face",
        "holds",
        ["namespace", "face", "created_at", "id"],
        sqlite_where=sa.text("face <> 'hold'"),
        postgresql_where=sa.text("face <> 'hold'"),
    )
    op.create_index(
        "ix_holds_outbox",
        "holds",
        ["closed_at"],
        sqlite_where=sa.text("outbox IS NOT NULL"),
        postgresql_where=sa.text("outbox IS NOT NULL"),
    )


def _entries() -> None:
    op.create_table(
        "balance_entries",
        sa.Column("namespace", sa.String(64), primary_key=True),
        sa.Column("subject", sa.Text, primary_key=True),
        sa.Column("feature_key", sa.String(64), primary_key=True),
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("amount", sa.Text, nullable=False),
        sa.Column("balance", sa.Text, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("ref", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
    )
    op.create_index(
        "ix_balance_entries_ref",
        "balance_entries",
        ["namespace", "subject", "feature_key", "ref"],
        unique=True,
    )


def _credit_rates() -> None:
    op.create_table(
        "credit_rates",
        sa.Column("namespace", sa.String(64), primary_key=True),
        sa.Column("model", sa.Text, primary_key=True),
        sa.Column("input_rate", sa.Text, nullable=False),
        sa.Column("output_rate", sa.Text, nullable=False),
        sa.Column("cached_rate", sa.Text, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
    )


def _idempotency() -> None:
    op.create_table(
        "idempotent_requests",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("fingerprint", sa.LargeBinary(32), nullable=False),
        sa.Column("owner", sa.String(26), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("answer", sa.LargeBinary),
    )
    op.create_index("ix_idempotent_requests_until", "idempotent_requests", ["until"])
