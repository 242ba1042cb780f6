"""Meters."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "meters",
        sa.Column("id", sa.String(26), primary_key=True),
        sa.Column("namespace", sa.String(64), nullable=False),
        sa.Column("slug", sa.String(64), nullable=False),
        sa.Column("name", sa.String(256), nullable=False),
        sa.Column("description", sa.Text),
        sa.Column("aggregation", sa.String(16), nullable=False),
        sa.Column("event_type", sa.Text, nullable=False),
        sa.Column("value_property", sa.Text),
        sa.Column("group_by", sa.JSON, nullable=False),
        sa.Column("event_from", sa.DateTime(timezone=True)),
        sa.Column("metadata", sa.JSON, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.UniqueConstraint("namespace", "slug", name="uq_meters_namespace_slug"),
    )


def downgrade() -> None:
    op.drop_table("meters")
