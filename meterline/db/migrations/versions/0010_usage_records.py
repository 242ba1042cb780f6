"""Prices of one's own, and the names of usage records."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.create_table(
        "prices",
        sa.Column("id", sa.String(26), primary_key=True),
        sa.Column("namespace", sa.String(64), nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("provider", sa.Text),
        sa.Column("valid_from", sa.DateTime(timezone=True)),
        sa.Column("valid_until", sa.DateTime(timezone=True)),
        sa.Column("rates", sa.JSON, nullable=False),
        sa.Column("note", sa.Text),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("ix_prices_namespace", "prices", ["namespace", "id"])
    op.create_table(
        "usage_record_names",
        sa.Column("namespace", sa.String(64), primary_key=True),
        sa.Column("record_id", sa.Text, primary_key=True),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("fingerprint", sa.LargeBinary, nullable=False),
        sa.Column("event", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("ix_usage_record_names_created", "usage_record_names", ["created_at"])
    op.create_index("ix_usage_record_names_subject", "usage_record_names", ["namespace", "subject"])
