"""The tables of holds, and of the history of balances.

Amounts are plain decimals as text, instants microseconds since 1970.
"""

import sqlalchemy as sa

from meterline.db.tables import metadata

accounts = sa.Table(
    "hold_accounts",
    metadata,
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
sa.Index(
    "ix_hold_accounts_next_expiry",
    accounts.c.next_expiry,
    sqlite_where=sa.text("next_expiry IS NOT NULL"),
    postgresql_where=sa.text("next_expiry IS NOT NULL"),
)

holds = sa.Table(
    "holds",
    metadata,
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
sa.Index(
    "ix_holds_open",
    holds.c.namespace,
    holds.c.subject,
    holds.c.feature_key,
    holds.c.expires_at,
    sqlite_where=sa.text("state = 'open'"),
    postgresql_where=sa.text("state = 'open'"),
)
sa.Index(
    "ix_holds_subject",
    holds.c.namespace,
    holds.c.subject,
    holds.c.feature_key,
    holds.c.created_at,
    holds.c.id,
)
sa.Index(
    "ix_holds_face",
    holds.c.namespace,
    holds.c.face,
    holds.c.created_at,
    holds.c.id,
    sqlite_where=sa.text("face <> 'hold'"),
    postgresql_where=sa.text("face <> 'hold'"),
)
sa.Index(
    "ix_holds_outbox",
    holds.c.closed_at,
    sqlite_where=sa.text("outbox IS NOT NULL"),
    postgresql_where=sa.text("outbox IS NOT NULL"),
)

entries = sa.Table(
    "balance_entries",
    metadata,
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
sa.Index(
    "ix_balance_entries_ref",
    entries.c.namespace,
    entries.c.subject,
    entries.c.feature_key,
    entries.c.ref,
    unique=True,
)
