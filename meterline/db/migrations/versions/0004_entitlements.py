"""Features, entitlements, grants and resets."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "features",
        sa.Column("id", sa.String(26), primary_key=True),
        sa.Column("namespace", sa.String(64), nullable=False),
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("name", sa.String(256), nullable=False),
        sa.Column("meter_slug", sa.String(64)),
        sa.Column("filters", sa.JSON, nullable=False),
        sa.Column("metadata", sa.JSON, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("archived_at", sa.DateTime(timezone=True)),
    )
    _unique_where("ux_features_key", "features", ["namespace", "key"], "archived_at IS NULL")
    op.create_table(
        "entitlements",
        sa.Column("id", sa.String(26), primary_key=True),
        sa.Column("namespace", sa.String(64), nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("feature_id", sa.String(26), sa.ForeignKey("features.id"), nullable=False),
        sa.Column("feature_key", sa.String(64), nullable=False),
        sa.Column("type", sa.String(16), nullable=False),
        sa.Column("usage_anchor", sa.DateTime(timezone=True)),
        sa.Column("usage_interval", sa.String(64)),
        sa.Column("usage_zone", sa.String(64)),
        sa.Column("measure_from", sa.DateTime(timezone=True)),
        sa.Column("is_soft_limit", sa.Boolean, nullable=False),
        sa.Column("preserve_overage_at_reset", sa.Boolean, nullable=False),
        sa.Column("issue_after_reset", sa.Text),
        sa.Column("issue_after_reset_priority", sa.Integer),
        sa.Column("config", sa.Text),
        sa.Column("metadata", sa.JSON, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
    )
    _unique_where(
        "ux_entitlements_active",
        "entitlements",
        ["namespace", "subject", "feature_key"],
        "ended_at IS NULL",
    )
    op.create_index("ix_entitlements_subject", "entitlements", ["namespace", "subject"])
    op.create_index("ix_entitlements_feature", "entitlements", ["feature_id"])
    op.create_index("ix_entitlements_created", "entitlements", ["namespace", "created_at", "id"])
    op.create_table(
        "grants",
        sa.Column("id", sa.String(26), primary_key=True),
        sa.Column("namespace", sa.String(64), nullable=False),
        sa.Column(
            "entitlement_id", sa.String(26), sa.ForeignKey("entitlements.id"), nullable=False
        ),
        sa.Column("amount", sa.Text, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("effective_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expiration_duration", sa.String(64)),
        sa.Column("expiration_count", sa.Integer),
        sa.Column("expires_at", sa.DateTime(timezone=True)),
        sa.Column("voided_at", sa.DateTime(timezone=True)),
        sa.Column("min_rollover", sa.Text, nullable=False),
        sa.Column("max_rollover", sa.Text, nullable=False),
        sa.Column("recurrence_anchor", sa.DateTime(timezone=True)),
        sa.Column("recurrence_interval", sa.String(64)),
        sa.Column("recurrence_zone", sa.String(64)),
        sa.Column("issued_after_reset", sa.Boolean, nullable=False),
        sa.Column("metadata", sa.JSON, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("ix_grants_entitlement", "grants", ["entitlement_id"])
    op.create_index("ix_grants_created", "grants", ["namespace", "created_at", "id"])
    op.create_table(
        "entitlement_resets",
        sa.Column(
            "entitlement_id", sa.String(26), sa.ForeignKey("entitlements.id"), primary_key=True
        ),
        sa.Column("at", sa.DateTime(timezone=True), primary_key=True),
        sa.Column("retain_anchor", sa.Boolean, nullable=False),
        sa.Column("preserve_overage", sa.Boolean),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    )


def _unique_where(name: str, table: str, columns: list[str], condition: str) -> None:
    op.create_index(
        name,
        table,
        columns,
        unique=True,
        sqlite_where=sa.text(condition),
        postgresql_where=sa.text(condition),
    )
