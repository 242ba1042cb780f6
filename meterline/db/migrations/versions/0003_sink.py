"""The sink's positions and plans, dead letters, series and purges."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "sink_partitions",
        sa.Column("part", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("position", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "sink_plans",
        sa.Column("part", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("first", sa.BigInteger, nullable=False),
        sa.Column("last", sa.BigInteger, nullable=False),
        sa.Column("planned_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("series", sa.JSON, nullable=False),
        sa.Column("skipped", sa.JSON, nullable=False),
    )
    op.create_table(
        "dead_letters",
        sa.Column("part", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("off", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("namespace", sa.String(64), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("events", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "series",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("namespace", sa.String(64), nullable=False),
        sa.Column("event_type", sa.Text, nullable=False),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("value_path", sa.Text),
        sa.Column("group_paths", sa.JSON, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("live_from", sa.JSON, nullable=False),
        sa.Column("done_through", sa.JSON, nullable=False),
        sa.Column("step", sa.BigInteger, nullable=False),
        sa.Column("in_progress", sa.Boolean, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "purges",
        sa.Column("namespace", sa.String(64), primary_key=True),
        sa.Column("subject", sa.Text, primary_key=True),
        sa.Column("requested_at", sa.DateTime(timezone=True), nullable=False),
    )
