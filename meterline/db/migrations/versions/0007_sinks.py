"""Sinks in several processes: who has a partition, the order of plans, and who uses a series."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.create_table(
        "sink_state",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("plans", sa.BigInteger, nullable=False),
        sa.Column("series_version", sa.BigInteger, nullable=False),
        sa.Column("leader", sa.BigInteger, nullable=False),
        sa.Column("partitions", sa.Integer),
    )
    op.execute(
        "INSERT INTO sink_state (id, plans, series_version, leader, partitions)"
        " VALUES (1, 0, 0, 0, NULL)"
    )
    op.add_column(
        "sink_partitions", sa.Column("epoch", sa.BigInteger, nullable=False, server_default="0")
    )
    op.add_column("sink_partitions", sa.Column("owner", sa.Text, nullable=False, server_default=""))
    op.add_column("sink_partitions", sa.Column("through_at", sa.DateTime(timezone=True)))
    op.add_column("sink_plans", sa.Column("seq", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column(
        "sink_plans", sa.Column("slow", sa.Boolean, nullable=False, server_default=sa.false())
    )
    op.add_column("series", sa.Column("dropped_at", sa.DateTime(timezone=True)))
    op.create_table(
        "series_users",
        sa.Column("series", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("meter_id", sa.Text, primary_key=True),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
    )
